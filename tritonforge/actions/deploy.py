"""``deploy`` and ``rollback``: take a release to a target behind its proof, or put back what was there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tritonforge.actions.deploy_plan import Plan, changes_between, plan_of
from tritonforge.actions.prove import prove
from tritonforge.actions.targets import OpenTarget, Progress, Snapshot, open_target
from tritonforge.actions.workspace import Workspace
from tritonforge.durable import describe_os_error
from tritonforge.errors import EnvironmentLacks, ForgeError, InternalError, Interrupted, UsageError
from tritonforge.interruption import interruptible
from tritonforge.repository.release import Release
from tritonforge.rollout.advisories import known_issues, require_minimum, summary
from tritonforge.rollout.delivery import bundle_of
from tritonforge.rollout.host import Bounded, Bundle, ServerStart
from tritonforge.rollout.journal import Event, Journal, TargetState, Unfinished
from tritonforge.rollout.lock import holder_here, target_lock
from tritonforge.rollout.place import AgentRefused
from tritonforge.rollout.points import remote
from tritonforge.rollout.strategies.one_slot import SLOT, OneSlot, one_slot_start
from tritonforge.rollout.strategies.one_slot_layouts import STRATEGY, steps_in_place
from tritonforge.rollout.strategies.two_slots import TwoSlots, free_slot, proxy_digest
from tritonforge.rollout.strategy import Candidate, Prove, Strategy
from tritonforge.triton.connection import Connection


@dataclass(slots=True)
class Deployment:
    """What a command did to a target: ``outcome`` is ``deployed``, ``unchanged``, ``planned`` or ``undone``."""

    target: str
    outcome: str
    release: str | None
    previous: str | None
    plan: Plan | None = None
    rollout: str | None = None
    slot: str | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """What was found unfinished and what became of it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "outcome": self.outcome,
            "release": self.release,
            "previous": self.previous,
            "rollout": self.rollout,
            "slot": self.slot,
            "seconds": round(self.seconds, 2),
            "notes": list(self.notes),
            "plan": None if self.plan is None else self.plan.to_json(),
        }


def deploy(
    workspace: Workspace,
    name: str,
    *,
    reference: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    progress: Progress = lambda text: None,
) -> Deployment:
    """Have the target serve a release (the platform's current one without ``reference``).

    ``resume`` goes on with a rollout that was interrupted; without it one is undone first.

    Raises:
        CheckFailed: the newcomer is bad, and the target serves what it served before.
        Inconclusive: no verdict; likewise.
        EnvironmentLacks: the target lacks something, is locked, or the connection was lost.
    """
    with open_target(workspace, name, progress, changing=not dry_run) as target:
        if isinstance(target.host, Bounded) and not resume:
            newcomer = bundle_of(workspace.releases(target.platform).find(reference))
            target.host.require_room(newcomer, slots=1 if target.strategy == STRATEGY else 2)
        snapshot = _prepared(target, dry_run)
        unfinished = snapshot.state.unfinished
        if resume and unfinished is not None and not unfinished.undoing and not unfinished.committed:
            reference = str(unfinished.begin["release"])
        folder = workspace.releases(target.platform)
        release = folder.find(reference)
        advice = _advice(workspace, target, release)
        if dry_run:
            done = _planned(target, snapshot, bundle_of(release), release)
        else:
            with folder.hold(release), interruptible():
                done = _change(
                    workspace, target, bundle_of(release), release, "deploy", resume=resume, progress=progress
                )
        done.notes += advice
        return done


def rollback(
    workspace: Workspace,
    name: str,
    *,
    to: str | None = None,
    dry_run: bool = False,
    progress: Progress = lambda text: None,
) -> Deployment:
    """Have the target serve an earlier release again: the one before, or the one whose digest begins with ``to``.

    It is on the target still, so it need not be here. It was proven when it came: only readiness is waited for.
    """
    with open_target(workspace, name, progress, changing=not dry_run) as target:
        snapshot = target.read()
        event = earlier_deployment(snapshot.state, to)
        bundle, start = _from_begin(event), ServerStart.from_json(event["start"])
        if dry_run:
            return Deployment(
                target.name, "planned", bundle.release, snapshot.state.release, plan_of(target, snapshot, bundle, start)
            )
        quick = replace(target, pace=replace(target.pace, weights=(100,)))
        with interruptible():
            with remote("host.prepare"):
                target.host.prepare()
            return _change(workspace, quick, bundle, None, "rollback", resume=False, progress=progress, start=start)


def earlier_deployment(state: TargetState, to: str | None) -> Event:
    """The rollout whose result a rollback brings back, with the image and the settings that it had.

    Raises:
        UsageError: the history has none.
    """
    active = _active(state)
    now = None if active is None or state.committed is None else state.committed["slots"][active]["fingerprint"]
    serving = (state.release, now)
    deployed = [event for event in state.history if event["outcome"] == "deployed"]
    releases = list(dict.fromkeys(str(event["release"]) for event in deployed))
    if to is None:
        found = [event for event in deployed if (event["release"], event["start"]["fingerprint"]) != serving]
    else:
        named = [release for release in releases if release.startswith(to)]
        if len(named) > 1:
            raise UsageError(f"more than one release begins with '{to}'", found=", ".join(item[:12] for item in named))
        found = [event for event in deployed if event["release"] in named]
    if not found:
        raise UsageError(
            f"the target's history has no release that begins with '{to}'" if to else "there is no earlier release",
            found=", ".join(item[:12] for item in releases) or "no release was deployed there",
            hint="`tritonforge history TARGET` lists what was there",
        )
    return found[-1]


def settle_unfinished(
    workspace: Workspace, target: OpenTarget, state: TargetState, token: str, progress: Progress
) -> str | None:
    """Finish or undo what an interrupted command left; what became of it, in words."""
    unfinished = state.unfinished
    if unfinished is None:
        return None
    strategy = _again(workspace, target, state, unfinished, token, progress)
    what = f"rollout {unfinished.rollout} of release {str(unfinished.begin['release'])[:12]}"
    if unfinished.committed:
        strategy.tidy()
        return f"{what} was committed by an interrupted command, and was tidied up now"
    strategy.undo("a later command found it unfinished")
    if unfinished.reverted:
        return f"{what} was reverted by the target's dead-man timer, and was cleared away now"
    where = unfinished.intended or (list(unfinished.done)[-1] if unfinished.done else "its beginning")
    return f"{what} was interrupted at '{where}', and was undone now"


def _advice(workspace: Workspace, target: OpenTarget, release: Release) -> list[str]:
    """What is publicly known to be wrong with the Triton that will serve.

    Raises:
        CheckFailed: it is older than the target's ``minimum_triton``.
    """
    triton = str(release.document["platform"]["triton"])
    place = workspace.loaded.place("targets", target.name, "minimum_triton")
    require_minimum(triton, target.spec.minimum_triton, target=target.name, place=place)
    backends = {str(entry["backend"]) for entry in release.models()}
    control = "none" if target.strategy == "two-slots" else "explicit"
    said = summary(known_issues(triton, model_control=control, backends=backends), triton)
    return [] if said is None else [said]


def _prepared(target: OpenTarget, dry_run: bool) -> Snapshot:
    if not dry_run:
        with remote("host.prepare"):
            target.host.prepare()
    return target.read()


def _planned(target: OpenTarget, snapshot: Snapshot, bundle: Bundle, release: Release | None) -> Deployment:
    start = _start(target, bundle, resolve=False)
    plan = plan_of(target, snapshot, bundle, start)
    if snapshot.state.committed is not None:
        _require_strategy(target, snapshot.state.committed["strategy"])
    if target.strategy == STRATEGY:
        plan = replace(plan, steps=tuple(steps_in_place(target.host, snapshot.state, bundle)))
    return Deployment(target.name, "planned", bundle.release, snapshot.state.release, plan)


def _change(
    workspace: Workspace,
    target: OpenTarget,
    bundle: Bundle,
    release: Release | None,
    what: str,
    *,
    resume: bool,
    progress: Progress,
    start: ServerStart | None = None,
) -> Deployment:
    """Take a bundle to the commit under the target's lock; ``start`` None is what the spec says now."""
    clock = time.monotonic()
    notes: list[str] = []
    with target_lock(target.host.place, f"{what} {bundle.release[:12]}") as token:
        state = target.read().state
        unfinished = state.unfinished
        going_on = (
            resume
            and unfinished is not None
            and not unfinished.committed
            and not unfinished.undoing
            and unfinished.begin["release"] == bundle.release
        )
        if going_on:
            assert unfinished is not None
            strategy = _again(workspace, target, state, unfinished, token, progress, release)
            notes.append(f"goes on with rollout {unfinished.rollout}")
            rollout, slot, done = unfinished.rollout, str(unfinished.begin["slot"]), unfinished.done
        else:
            note = settle_unfinished(workspace, target, state, token, progress)
            if note is not None:
                notes.append(note)
                state = target.read().state
            if state.committed is not None:
                _require_strategy(target, state.committed["strategy"])
            start = start or _start(target, bundle, resolve=True)
            plan = changes_between(state, bundle, start)
            if _serves(target, state, start, bundle.release):
                return Deployment(
                    target.name, "unchanged", bundle.release, state.release, plan, notes=notes, slot=_active(state)
                )
            rollout, slot, done = secrets.token_hex(5), _slot_for(target, state, start), {}
            journal = Journal(target.host.place, token, rollout, state.events)
            journal.add(
                "begin",
                what=what,
                release=bundle.release,
                previous=state.release,
                strategy=target.strategy,
                slot=slot,
                start=start.to_json(),
                arguments=list(bundle.arguments),
                document=_document(bundle),
                by=holder_here(what)["who"],
                **({"machine": dict(target.host.facts())} if isinstance(target.host, Bounded) else {}),
            )
            strategy = _strategy(workspace, target, state, journal, token, bundle, start, slot, release, progress)
        try:
            strategy.run(done)
        except (Exception, KeyboardInterrupt) as error:
            committed = _committed(target, rollout)
            if not committed:
                undo = None if committed is None else strategy.undo
                raise _undone(undo, target, error, state, notes) from error
            if isinstance(error, KeyboardInterrupt):
                raise _untidied(bundle) from None
            notes.append(f"the release was committed, and then: {_words(error)}")
        notes += getattr(strategy, "warnings", [])
        try:
            strategy.tidy()
        except KeyboardInterrupt:
            raise _untidied(bundle) from None
        except ForgeError as error:
            notes.append(f"deployed, but not tidied up: {error.message}; the next command does it")
    return Deployment(
        target.name,
        "deployed",
        bundle.release,
        state.release,
        None,
        rollout,
        slot,
        time.monotonic() - clock,
        notes,
    )


def _committed(target: OpenTarget, rollout: str) -> bool | None:
    """Whether the journal says that a rollout was committed; None where it cannot be asked."""
    with suppress(ForgeError):
        unfinished = target.read().state.unfinished
        return unfinished is not None and unfinished.rollout == rollout and unfinished.committed
    return None


def _untidied(bundle: Bundle) -> Interrupted:
    return Interrupted(
        f"release {bundle.release[:12]} serves; the command was interrupted while it tidied up",
        hint="the next command on this target finishes that",
    )


def _undone(
    undo: Callable[[str], None] | None,
    target: OpenTarget,
    error: Exception | KeyboardInterrupt,
    state: TargetState,
    notes: Sequence[str],
) -> ForgeError:
    """Go back, and say both what failed and what serves now. ``undo`` is None where the target cannot be asked."""
    said = _as_forge_error(error, target)
    tail = "nothing was there before" if state.release is None else f"release {state.release[:12]} serves, as before"
    try:
        if undo is None:
            raise EnvironmentLacks("the target cannot be reached")
        undo(said.message)
    except (Exception, KeyboardInterrupt) as second:
        tail = _not_undone(second)
    said.message = f"{said.message}; {tail}"
    said.args = (said.message,)
    said.details = (*notes, *said.details)
    return said


def _not_undone(error: Exception | KeyboardInterrupt) -> str:
    """What becomes of a rollout that could not be undone, in words."""
    if isinstance(error, AgentRefused) and error.code == "lock":
        return "nobody was heard of in time, so the target went back by itself or another command has taken it over"
    return (
        f"undoing it now failed: {_words(error)}; where traffic was moved already the target goes back by itself when "
        "its dead-man timer ends, and the next command clears up"
    )


def _as_forge_error(error: Exception | KeyboardInterrupt, target: OpenTarget) -> ForgeError:
    """What ended a rollout, with the exit code that is true of it."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("the rollout was interrupted")
    if isinstance(error, AgentRefused) and error.code in ("lock", "proxy", "watch", "reverted"):
        return EnvironmentLacks(error.message, details=error.details)
    if isinstance(error, ForgeError):
        return error
    if isinstance(error, OSError):
        return describe_os_error(error, "the rollout failed", Path(target.host.place.title))
    return InternalError(_words(error), hint="run the command again with --debug and report what it prints")


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return error.message if isinstance(error, ForgeError) else f"{type(error).__name__}: {error}"


def _require_strategy(target: OpenTarget, there: str) -> None:
    """The public ports belong to the proxy, or to the one server: a target goes on as it began.

    Raises:
        UsageError: the spec says another strategy now.
    """
    if there != target.strategy:
        raise UsageError(
            f"'{target.name}' was deployed with another strategy, and what that started has its public ports",
            expected=f"strategy: {there}",
            found=f"strategy: {target.strategy}",
            hint="leave the strategy as it is, or declare another target with ports and a name of its own",
        )


def _serves(target: OpenTarget, state: TargetState, start: ServerStart, release: str) -> bool:
    """Whether exactly this is committed and runs."""
    active = _active(state)
    if active is None or state.committed is None:
        return False
    if state.committed["slots"][active]["fingerprint"] != start.fingerprint:
        return False
    if target.strategy == STRATEGY and state.release != release:
        return False
    status = target.host.status(active)
    if not status.running or status.fingerprint != start.fingerprint:
        return False
    if target.proxy is None:
        return True
    same = state.committed.get("proxy") == proxy_digest(target.host, target.proxy)
    return same and target.host.proxy_status().running


def _active(state: TargetState) -> str | None:
    return None if state.committed is None else str(state.committed["active"])


def _slot_for(target: OpenTarget, state: TargetState, start: ServerStart) -> str:
    """The slot that serves when it only has to be started again, or is the only one; the free one otherwise."""
    if target.strategy == STRATEGY:
        return SLOT
    active = _active(state)
    committed = state.committed
    if active is not None and committed and committed["slots"][active]["fingerprint"] == start.fingerprint:
        return active
    return free_slot(state)


def _start(target: OpenTarget, bundle: Bundle, *, resolve: bool) -> ServerStart:
    image = target.host.resolve_image() if resolve else None
    if target.strategy == STRATEGY:
        return one_slot_start(bundle, image, target.host.settings())
    return ServerStart(
        bundle.release,
        bundle.arguments,
        image,
        "none",
        f"snapshots/{bundle.release}/models",
        target.host.settings(),
    )


def _again(
    workspace: Workspace,
    target: OpenTarget,
    state: TargetState,
    unfinished: Unfinished,
    token: str,
    progress: Progress,
    release: Release | None = None,
) -> Strategy:
    """The rollout that the journal tells of, to go on with it or to undo it."""
    begin = unfinished.begin
    _require_strategy(target, begin["strategy"])
    journal = Journal(target.host.place, token, unfinished.rollout, state.events)
    start = ServerStart.from_json(begin["start"])
    bundle = _from_begin(begin) if release is None else bundle_of(release)
    before = state if not unfinished.committed else _before(state, unfinished)
    return _strategy(workspace, target, before, journal, token, bundle, start, str(begin["slot"]), release, progress)


def _before(state: TargetState, unfinished: Unfinished) -> TargetState:
    """The state as the committed rollout found it: its old slot is the one that it did not take."""
    committed = state.committed
    assert committed is not None
    slot = str(unfinished.begin["slot"])
    others = [name for name in committed["slots"] if name != slot]
    if not others or unfinished.begin["previous"] is None:
        return TargetState(state.events, None, state.unfinished, state.history)
    earlier = {**committed, "active": others[0], "release": unfinished.begin["previous"]}
    return TargetState(state.events, earlier, state.unfinished, state.history)


def _strategy(
    workspace: Workspace,
    target: OpenTarget,
    state: TargetState,
    journal: Journal,
    token: str,
    bundle: Bundle,
    start: ServerStart,
    slot: str,
    release: Release | None,
    progress: Progress,
) -> Strategy:
    proving = None if release is None else _prover(workspace, target, release)
    if target.strategy == STRATEGY:
        return OneSlot(target.host, journal, token, state, bundle, start, target.pace, proving, progress)
    assert target.proxy is not None
    return TwoSlots(
        target.host,
        journal,
        token,
        state,
        bundle,
        start,
        slot,
        target.proxy,
        target.pace,
        proving,
        progress,
        target.files.texts,
    )


def _prover(workspace: Workspace, target: OpenTarget, release: Release) -> Prove:
    def proved(
        connection: Connection, progress: Progress, among: Mapping[str, Candidate] | None = None
    ) -> Mapping[str, Any]:
        return prove(
            workspace,
            target.platform,
            release,
            connection,
            answers=target.spec.validate_answers,
            gates=target.spec.gates,
            progress=progress,
            among=among,
        )

    return proved


def _document(bundle: Bundle) -> dict[str, Any]:
    """What is needed to make the snapshot again, and to say what is in it, when the release is not at hand."""
    return {
        "name": bundle.document.get("name"),
        "stateful": bundle.stateful,
        "files": {path: dict(item) for path, item in bundle.files.items()},
        "folders": list(bundle.folders),
        "models": [
            {key: entry[key] for key in ("folder", "name", "version", "backend", "config", "artifact", "kind")}
            for entry in bundle.document.get("models", [])
        ],
    }


def _from_begin(begin: Mapping[str, Any]) -> Bundle:
    document = begin["document"]
    return Bundle(
        str(begin["release"]),
        None,
        document["files"],
        document["folders"],
        tuple(begin["arguments"]),
        bool(document["stateful"]),
        document,
    )
