"""How results reach the user: tables for people on stdout, one JSON object for machines, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


def emit_json(value: object) -> None:
    """The one object of ``--json``."""
    click.echo(json.dumps(_finite(value), ensure_ascii=False, sort_keys=True, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def say(text: str) -> None:
    """A message; never on stdout."""
    click.echo(text, err=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console that does not wrap in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def table(title: str | None, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row])
    console().print(made)


def verdict(ok: bool | None, words: tuple[str, str, str] = ("pass", "FAIL", "inconclusive")) -> Any:
    """A coloured verdict."""
    from rich.text import Text

    if ok is None:
        return Text(words[2], style="yellow")
    return Text(words[0], style="green") if ok else Text(words[1], style="bold red")
