"""``tritonforge config``."""

from __future__ import annotations

from pathlib import Path

import click

from tritonforge.cli.options import json_option, platform_option, spec_options
from tritonforge.cli.output import emit_json, table
from tritonforge.errors import Place


@click.group()
def config() -> None:
    """What config.pbtxt says, and why."""


@config.command()
@click.argument("model")
@spec_options
@platform_option
@click.option("--text", is_flag=True, help="Only the config.pbtxt.")
@json_option
def show(
    model: str, spec: Path | None, overlays: tuple[Path, ...], platform: str | None, text: bool, as_json: bool
) -> None:
    """Show the config of MODEL as the spec gives it now, and where each field came from."""
    from tritonforge.actions.config import show_config
    from tritonforge.actions.workspace import open_workspace

    shown = show_config(open_workspace(spec, overlays), model, platform)
    if as_json:
        emit_json(shown.to_json())
    elif text:
        click.echo(shown.config.text, nl=False)
    else:
        rows = [[o.path, o.value, _origin(o.source, o.place)] for o in shown.config.origins]
        table(f"{shown.folder}/config.pbtxt", ["field", "value", "from"], rows)


def _origin(source: str, place: Place | None) -> str:
    """Where a value came from; a template's label names its file already."""
    if place is None or place.file is None or place.file.name in source:
        return source
    return f"{source} ({place.file.name}{'' if place.line is None else f':{place.line}'})"
