"""``tritonforge replay``."""

from __future__ import annotations

from pathlib import Path

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, table, verdict
from tritonforge.errors import ExitCode


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def replay(folder: Path, as_json: bool) -> None:
    """Run the failing cases in FOLDER again on the artefact that failed them."""
    from tritonforge.actions.replay import replay as run_replay

    result = run_replay(folder)
    if as_json:
        emit_json(result.to_json())
    else:
        rows = [
            [
                row.case,
                row.difference.output,
                *(_figure(value) for value in (row.difference.max_abs, row.difference.max_rel)),
                _figure(row.difference.cosine, ".6f"),
                _figure(row.difference.agreement, ".4f"),
                verdict(row.difference.ok),
                row.difference.reason or "",
            ]
            for row in result.rows
        ]
        title = f"{result.artifact[:12]} in {result.runner} against {result.reference}"
        table(title, ["case", "output", "max abs", "max rel", "cosine", "agreement", "", "why"], rows)
    if not result.ok:
        raise SystemExit(int(ExitCode.BAD))


def _figure(value: float | None, form: str = ".3g") -> str:
    return "–" if value is None else format(value, form)
