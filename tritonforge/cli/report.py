"""``tritonforge report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonforge.cli.options import json_option, platform_option, spec_options
from tritonforge.cli.output import emit_json, table, verdict

if TYPE_CHECKING:
    from tritonforge.report import Report

_STATE = {"proven": True, "failed": False, "partly": None, "unproven": None}
_GATE = {"pass": True, "fail": False}


@click.command()
@click.argument("reference", metavar="[RELEASE]", required=False)
@spec_options
@platform_option
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the page here instead.")
@json_option
def report(
    reference: str | None,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Write the report of a release (the current one, or RELEASE: the beginning of a digest) as HTML and JSON.

    It says what was built and why, shows the ensembles, and holds all evidence: parity, validation and gates. Nothing
    is measured; what was not measured is said to be missing.
    """
    from tritonforge.actions.report import write_report
    from tritonforge.actions.workspace import open_workspace

    paths = write_report(open_workspace(spec, overlays), platform_name=platform, reference=reference, html=html)
    if as_json:
        emit_json(paths.report.to_json())
        return
    _show(paths.report)
    click.echo(f"report: {paths.html if html is not None or paths.stable is None else paths.stable}")


def _show(made: Report) -> None:
    from tritonforge.cli.output import console
    from tritonforge.report.figures import number, short

    platform = f"{made.platform['name']} (Triton {made.platform['triton']})"
    click.echo(f"{made.name} for {platform}: release {short(made.release)}")
    headline = made.summary.headline
    console().print(verdict(_STATE[made.summary.state], (headline, headline, headline)))
    for reason in made.summary.reasons:
        click.echo(f"  {reason}")
    rows = [[row.folder, row.kind, row.version, row.backend, row.proven_on] for row in made.models]
    table(None, ["model", "kind", "version", "backend", "proven on"], rows)
    since = f"since release {short(made.changes.previous)}" if made.changes.previous else "history"
    click.echo(f"{since}: {'; '.join(made.changes.lines)}")
    if made.parity:
        worst = max((row.max_abs or 0.0 for row in made.parity), default=0.0)
        near = sum(row.ok for row in made.parity)
        click.echo(
            f"parity: {near} of {len(made.parity)} comparisons within tolerance, largest difference {number(worst)}"
        )
    measured = [
        [gate.name, level.concurrency, *figures, verdict(_GATE.get(gate.verdict))]
        for gate in made.gates
        if gate.evidence is not None
        for level in gate.evidence.levels
        for figures in [
            [
                number(None if level.throughput is None else level.throughput.value),
                *(number(None if item is None else item.value / 1000) for item in (level.p50_us, level.p95_us)),
            ]
        ]
    ]
    if measured:
        table(None, ["gate", "in flight", "per second", "p50 ms", "p95 ms", "gate's verdict"], measured)
    for gate in made.gates:
        if gate.evidence is None:
            click.echo(f"gate {gate.name}: {gate.problem or 'not measured on this release'}")
