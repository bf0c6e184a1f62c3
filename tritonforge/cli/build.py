"""``tritonforge plan`` and ``tritonforge build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonforge.cli.options import json_option, spec_options
from tritonforge.cli.output import emit_json, say, table
from tritonforge.errors import ExitCode

if TYPE_CHECKING:
    from tritonforge.actions.build import BuildOutcome, PlatformOutcome
    from tritonforge.artifact.remote.shared import SharedOutcome

_platforms = click.option(
    "--platform",
    "platforms",
    multiple=True,
    help="A platform of the spec, or `all`; may be repeated.  [default: its first]",
)


@click.command()
@spec_options
@_platforms
@json_option
def plan(spec: Path | None, overlays: tuple[Path, ...], platforms: tuple[str, ...], as_json: bool) -> None:
    """Show what a build would run, and why. Nothing is run and nothing is changed."""
    from tritonforge.actions.plan import make_plan
    from tritonforge.actions.workspace import open_workspace

    plans = make_plan(open_workspace(spec, overlays), platforms, lambda text: say(f"warning: {text}"))
    if as_json:
        emit_json({"platforms": [item.to_json() for item in plans]})
    else:
        for item in plans:
            rows = [
                [step.node.id, step.action, "; ".join(step.reasons)] for step in item.steps if step.action != "keep"
            ]
            kept = sum(step.action == "keep" for step in item.steps)
            fetched = sum(step.action == "fetch" for step in item.steps)
            if rows:
                title = f"{item.platform.name}: {len(rows) - fetched} of {len(item.steps)} steps would run"
                title += f", {fetched} would be fetched" if fetched else ""
                table(title, ["step", "", "why"], rows)
            else:
                click.echo(f"{item.platform.name}: nothing to run, {kept} steps are in the store")
            for line in item.release:
                click.echo(f"  {line}")
    errors = [error for item in plans for error in item.errors]
    for error in errors:
        say(f"error: {error}")
    if errors:
        raise SystemExit(max(int(error.exit_code) for error in errors))


@click.command()
@spec_options
@_platforms
@click.option("--force", is_flag=True, help="Run every step again.")
@click.option("--force-model", "forced", multiple=True, help="Run the steps of this model again; may be repeated.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Steps at once.  [default: the cores of this machine]")
@click.option("--update-sources", is_flag=True, help="Resolve package sources anew instead of holding to forge.lock.")
@click.option("--no-wait", is_flag=True, help="Fail instead of waiting for another build of this spec.")
@json_option
def build(
    spec: Path | None,
    overlays: tuple[Path, ...],
    platforms: tuple[str, ...],
    force: bool,
    forced: tuple[str, ...],
    jobs: int | None,
    update_sources: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Build what changed, compose a release for each platform, and make it current."""
    from tritonforge.actions.build import BuildOptions, first_error
    from tritonforge.actions.build import build as run_build
    from tritonforge.actions.workspace import open_workspace
    from tritonforge.cli.progress import BuildProgress

    workspace = open_workspace(spec, overlays)
    options = BuildOptions(platforms, ("*",) if force else forced, jobs, update_sources, not no_wait)
    with BuildProgress(quiet=as_json) as observer:
        outcome = run_build(workspace, options, observer)
    if as_json:
        shared = {} if outcome.shared is None else {"store": outcome.shared.to_json()}
        emit_json({"platforms": [item.to_json() for item in outcome.platforms], **shared})
    else:
        for item in outcome.platforms:
            _summary(item)
        if outcome.shared is not None:
            _shared(outcome.shared)
    _failures(outcome)
    if outcome.failures:
        raise SystemExit(int(first_error(outcome.failures).exit_code) or int(ExitCode.BAD))


def _summary(item: PlatformOutcome) -> None:
    from tritonforge.repository.release import entry_title

    ran, fetched, kept = item.count("built"), item.count("fetched"), item.count("cached")
    if item.release is None:
        here = ran + fetched + kept
        click.echo(f"{item.platform.name}: no release was made, {here} of {len(item.results)} steps are in the store")
        return
    steps = "step" if ran == 1 else "steps"
    if fetched:
        what = f"{ran} {steps} run, {fetched} fetched, {kept} unchanged"
    else:
        what = f"{ran} {steps} run, {kept} unchanged" if ran else f"nothing to build, {kept} steps unchanged"
    head = f"{item.platform.name}: {what} ({item.seconds:.1f} s)"
    if item.new:
        state = "new release"
    elif item.flipped:
        state = "back to release"
    else:
        state = "still release"
    click.echo(f"{head}; {state} {item.release.digest[:12]}")
    if item.new:
        rows = [
            [
                entry_title(entry),
                entry["version"],
                entry["backend"],
                entry["max_batch_size"] or "–",
                entry["artifact"][:12],
            ]
            for entry in item.release.models()
        ]
        table(None, ["model", "version", "backend", "max batch", "artifact"], rows)
        click.echo(f"serve it with --model-repository {item.release.folder.parent.parent / 'current' / 'models'}")
    for warning in item.warnings:
        say(f"warning: {warning}")


def _shared(done: SharedOutcome) -> None:
    """What went to and from the team's store; its warnings were said when they came up."""
    from tritonforge.cli.cache import megabytes

    parts = []
    if done.fetched:
        parts.append(f"{done.fetched} fetched ({megabytes(done.fetched_bytes)})")
    if done.sent:
        parts.append(f"{done.sent} sent ({megabytes(done.sent_bytes)})")
    if done.left:
        parts.append(f"{done.left} to be sent by the next build")
    if parts:
        click.echo(f"{done.remote}: {', '.join(parts)}")


def _failures(outcome: BuildOutcome) -> None:
    for failure in outcome.failures:
        say(click.style("error: ", fg="red", bold=True) + f"{failure.model}: {failure.error}")
    failed = {failure.model for failure in outcome.failures}
    if failed:
        names = {result.node.model for item in outcome.platforms for result in item.results.values()} - failed
        if names:
            say(f"built all the same, and kept: {', '.join(sorted(names))}")
