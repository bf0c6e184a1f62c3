"""``tritonforge gate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonforge.cli.options import json_option, platform_option, release_option, server_options, spec_options
from tritonforge.cli.output import emit_json, say, table, verdict
from tritonforge.errors import ExitCode

if TYPE_CHECKING:
    from tritonforge.actions.gate import GateOutcome

_OK = {"pass": True, "fail": False, "inconclusive": None}


@click.command()
@click.argument("names", nargs=-1)
@spec_options
@platform_option
@release_option
@server_options
@click.option("--reuse", is_flag=True, help="Take the evidence of an earlier pass of this very release and gate.")
@json_option
def gate(
    names: tuple[str, ...],
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    reference: str | None,
    server: str | None,
    tritonserver: Path | None,
    container: str | None,
    reuse: bool,
    as_json: bool,
) -> None:
    """Measure the gates NAMES (all of the platform's without any) with perf_analyzer, and judge them.

    Three verdicts: pass, fail, and inconclusive where the measurement allows neither; inconclusive never passes.
    """
    from tritonforge.actions.gate import overall, run_gates
    from tritonforge.actions.live import ServerChoice
    from tritonforge.actions.workspace import open_workspace
    from tritonforge.measure import Verdict

    outcomes = run_gates(
        open_workspace(spec, overlays),
        platform_name=platform,
        reference=reference,
        names=names,
        choice=ServerChoice(server, tritonserver, container),
        reuse=reuse,
        progress=(lambda text: None) if as_json or not sys.stderr.isatty() else say,
    )
    if as_json:
        emit_json({"verdict": overall(outcomes).value, "gates": [outcome.to_json() for outcome in outcomes]})
    else:
        for outcome in outcomes:
            _show(outcome)
    final = overall(outcomes)
    if final is not Verdict.PASS:
        raise SystemExit(int(ExitCode.BAD if final is Verdict.FAIL else ExitCode.INCONCLUSIVE))


def _show(outcome: GateOutcome) -> None:
    evidence = outcome.evidence
    when = f"measured {evidence.ended}" if outcome.reused else f"{len(evidence.levels)} levels"
    click.echo(f"gate {outcome.name} on {evidence.model}: {outcome.verdict.value} ({when})")
    rows = []
    for result in evidence.results:
        for item in result.conditions:
            interval = "" if item.low is None or item.high is None else f"{item.low:.4g} … {item.high:.4g}"
            measured = "–" if item.measured is None else f"{item.measured:.4g}"
            rows.append(
                [
                    result.concurrency,
                    item.name,
                    measured,
                    interval,
                    f"{item.bound:g}",
                    item.unit,
                    verdict(_OK[item.verdict.value]),
                    item.reason,
                ]
            )
    table(None, ["in flight", "figure", "measured", "95 % interval", "bound", "unit", "", "why"], rows)
    for note in evidence.notes:
        say(f"note: {note}")
