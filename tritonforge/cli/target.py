"""``tritonforge status``, ``history``, ``diff``, ``logs`` and ``unlock``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tritonforge.cli.options import json_option, spec_options
from tritonforge.cli.output import emit_json, table, verdict
from tritonforge.errors import ExitCode


@click.command()
@click.argument("target")
@spec_options
@json_option
def status(target: str, spec: Path | None, overlays: tuple[Path, ...], as_json: bool) -> None:
    """Show what runs on TARGET. Exit 1 when it is not whole, or something is unfinished there."""
    from tritonforge.actions.status import status as action
    from tritonforge.actions.workspace import open_workspace

    view = action(open_workspace(spec, overlays), target)
    if as_json:
        emit_json(view.to_json())
        sys.exit(int(ExitCode.OK if view.ok else ExitCode.BAD))
    short = "no release yet" if view.release is None else f"release {view.release[:12]} since {view.since}"
    click.echo(f"{view.target} ({view.kind}, {view.strategy}): {short}")
    rows = [
        [
            item.slot,
            verdict(True, ("serves", "", "")) if item.active else "",
            "–" if item.release is None else item.release[:12],
            item.status.words,
            "" if item.share is None else f"{item.share} %",
        ]
        for item in view.slots
    ]
    table(None, ["slot", "", "release", "server", "traffic"], rows)
    ready = "unknown: the server does not answer" if view.ready is None else f"{view.ready} of {view.models} ready"
    click.echo(f"models: {ready}; proxy: {view.proxy}; free: {view.free / 1e9:.1f} GB")
    for text in (view.unfinished, None if view.lock is None else f"locked by {view.lock}"):
        if text:
            click.echo(text)
    if not view.watching:
        click.echo("the dead-man timer does not run: the next deploy starts it")
    sys.exit(int(ExitCode.OK if view.ok else ExitCode.BAD))


@click.command()
@click.argument("target")
@spec_options
@json_option
def history(target: str, spec: Path | None, overlays: tuple[Path, ...], as_json: bool) -> None:
    """List every rollout of TARGET and how it ended, the newest last."""
    from tritonforge.actions.status import history as action
    from tritonforge.actions.workspace import open_workspace

    events = action(open_workspace(spec, overlays), target)
    names = ("rollout", "what", "release", "previous", "slot", "strategy", "by", "at", "ended", "outcome", "reason")
    if as_json:
        emit_json({"target": target, "history": [{name: event.get(name) for name in names} for event in events]})
        return
    rows = [
        [
            event["at"],
            event["what"],
            str(event["release"])[:12],
            event.get("slot") or "",
            event["outcome"],
            event.get("by") or "",
            event.get("reason") or "",
        ]
        for event in events
    ]
    table(None, ["at", "what", "release", "slot", "outcome", "by", "why"], rows)


@click.command()
@click.argument("target")
@spec_options
@click.option("--deep", is_flag=True, help="Read every file on the target, not only sizes.")
@json_option
def diff(target: str, spec: Path | None, overlays: tuple[Path, ...], deep: bool, as_json: bool) -> None:
    """Compare what runs on TARGET with what was released there. Exit 1 when they differ."""
    from tritonforge.actions.drift import drift
    from tritonforge.actions.workspace import open_workspace

    found = drift(open_workspace(spec, overlays), target, deep=deep)
    if as_json:
        emit_json(found.to_json())
        sys.exit(int(ExitCode.OK if found.ok else ExitCode.BAD))
    if found.ok:
        click.echo(f"{target}: as released ({found.release[:12]})")
    else:
        table(
            f"{target}: not as released ({found.release[:12]})", ["where", "what"], [list(item) for item in found.found]
        )
    if found.waiting is not None and not found.waiting.empty:
        changes = [f"{item.folder} ({item.kind})" for item in found.waiting.models] + list(found.waiting.server)
        click.echo("a deploy of the current release would change: " + ", ".join(changes))
    sys.exit(int(ExitCode.OK if found.ok else ExitCode.BAD))


@click.command()
@click.argument("target")
@click.argument("unit", required=False)
@spec_options
@click.option("--tail", type=click.IntRange(min=1), default=200, show_default=True, help="This many last lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come.")
def logs(target: str, unit: str | None, spec: Path | None, overlays: tuple[Path, ...], tail: int, follow: bool) -> None:
    """Show the log of UNIT of TARGET: blue, green, proxy or keeper; of the server that serves without one."""
    from tritonforge.actions.status import logs as action
    from tritonforge.actions.workspace import open_workspace

    for line in action(open_workspace(spec, overlays), target, unit=unit, tail=tail, follow=follow):
        click.echo(line)


@click.command()
@click.argument("target")
@spec_options
@click.option("--break", "break_it", is_flag=True, help="End the lock, whoever holds it.")
@json_option
def unlock(target: str, spec: Path | None, overlays: tuple[Path, ...], break_it: bool, as_json: bool) -> None:
    """Show whose lock TARGET has; with --break end it. Its holder can change nothing there any more then."""
    from tritonforge.actions.status import unlock as action
    from tritonforge.actions.workspace import open_workspace
    from tritonforge.rollout.lock import describe_holder

    held = action(open_workspace(spec, overlays), target, break_it=break_it)
    if as_json:
        emit_json({"target": target, "lock": held, "broken": break_it and held is not None})
        return
    if held is None:
        click.echo(f"{target} is not locked")
        return
    gone = "; that process has ended" if held["gone"] else ""
    click.echo(f"{target} {'was' if break_it else 'is'} locked by {describe_holder(held)}{gone}")
    if break_it:
        click.echo("the lock is broken; the next deploy undoes what was unfinished")
