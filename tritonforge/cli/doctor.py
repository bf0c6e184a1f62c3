"""``tritonforge doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritonforge.cli.options import json_option, spec_options
from tritonforge.cli.output import emit_json, table


@click.command()
@click.option("--target", help="Look at this target too, and at what it needs here.")
@spec_options
@json_option
def doctor(target: str | None, spec: Path | None, overlays: tuple[Path, ...], as_json: bool) -> int:
    """Tell what this machine, or a target, has and lacks, and what to do about it. Nothing is changed."""
    from tritonforge.actions.doctor import diagnose
    from tritonforge.actions.workspace import open_workspace

    diagnosis = diagnose(None if target is None else open_workspace(spec, overlays), target)
    if as_json:
        emit_json(diagnosis.to_json())
    else:
        title = None if target is None else f"{target} ({diagnosis.kind})"
        rows = [[item.name, _marked(item.state), item.found, item.hint or ""] for item in diagnosis.findings]
        table(title, ["", "", "found", "what to do"], rows)
    return int(diagnosis.exit_code)


def _marked(state: str) -> Any:
    from rich.text import Text

    return Text(state, style={"ok": "green", "warn": "yellow", "lacks": "bold red"}[state])
