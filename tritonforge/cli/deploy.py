"""``tritonforge deploy`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonforge.cli.live_line import live_line
from tritonforge.cli.options import json_option, release_option, spec_options
from tritonforge.cli.output import emit_json, say, table
from tritonforge.errors import UsageError

if TYPE_CHECKING:
    from tritonforge.actions.deploy import Deployment


@click.command()
@click.argument("target")
@spec_options
@release_option
@click.option("--dry-run", is_flag=True, help="Show the exact differences, and change nothing.")
@click.option(
    "--adopt", metavar="RUNNING", help="Make a Triton that runs already (a container, a Service) the first release."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted rollout; without it that one is undone first.")
@json_option
def deploy(
    target: str,
    spec: Path | None,
    overlays: tuple[Path, ...],
    reference: str | None,
    dry_run: bool,
    resume: bool,
    adopt: str | None,
    as_json: bool,
) -> None:
    """Take a release to TARGET: proven there first, then the traffic moves; back by itself when anything is wrong."""
    from tritonforge.actions.adopt import adopt as take_in
    from tritonforge.actions.deploy import deploy as action
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(spec, overlays)
    if adopt is not None:
        if reference is not None or resume:
            raise UsageError("--adopt goes with neither --release nor --resume")
        with live_line(as_json) as progress:
            done = take_in(workspace, target, adopt, dry_run=dry_run, progress=progress)
        _show(done, as_json)
        return
    with live_line(as_json) as progress:
        done = action(workspace, target, reference=reference, dry_run=dry_run, resume=resume, progress=progress)
    _show(done, as_json)


@click.command()
@click.argument("target")
@click.argument("to", required=False)
@spec_options
@click.option("--dry-run", is_flag=True, help="Show the exact differences, and change nothing.")
@json_option
def rollback(
    target: str, to: str | None, spec: Path | None, overlays: tuple[Path, ...], dry_run: bool, as_json: bool
) -> None:
    """Have TARGET serve the release before again, or the one whose digest begins with TO."""
    from tritonforge.actions.deploy import rollback as action
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(spec, overlays)
    with live_line(as_json) as progress:
        done = action(workspace, target, to=to, dry_run=dry_run, progress=progress)
    _show(done, as_json)


def _show(done: Deployment, as_json: bool) -> None:
    if as_json:
        emit_json(done.to_json())
        return
    for note in done.notes:
        say(note)
    short = "–" if done.release is None else done.release[:12]
    if done.outcome == "planned":
        if done.plan is None:
            return
        before = "nothing" if done.previous is None else done.previous[:12]
        click.echo(f"{done.target}: {before} → {short}")
        rows = [[item.folder, item.kind, ", ".join(item.what)] for item in done.plan.models]
        if rows:
            table(None, ["model", "", "difference"], rows)
        for line in done.plan.server:
            click.echo(f"server: {line}")
        for line in done.plan.steps:
            click.echo(f"in place: {line}")
        if done.plan.empty:
            click.echo("nothing would change")
        elif done.plan.bytes is not None:
            click.echo(f"{done.plan.bytes / 1e6:,.1f} MB in {done.plan.files} files would travel")
        return
    if done.outcome == "unchanged":
        click.echo(f"{done.target}: release {short} serves already, in {done.slot}")
        return
    before = "" if done.previous is None else f", instead of {done.previous[:12]}"
    click.echo(f"{done.target}: release {short} serves in {done.slot}{before} ({done.seconds:.1f} s)")
