"""What a deployment says when it fails, what a rollback goes back to, and what differs between two releases."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tritonforge.actions import deploy as module
from tritonforge.actions.deploy import earlier_deployment
from tritonforge.actions.deploy_plan import ModelChange, changes_between
from tritonforge.actions.targets import OpenTarget
from tritonforge.errors import CheckFailed, EnvironmentLacks, ExitCode, ForgeError, Inconclusive, UsageError
from tritonforge.rollout.host import Bundle, ServerStart
from tritonforge.rollout.journal import TargetState, read_state
from tritonforge.rollout.place import AgentRefused

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def journal(*releases: str, undone: tuple[str, ...] = ()) -> TargetState:
    """A journal of releases in turn; those ``undone`` never served."""
    events: list[dict[str, Any]] = []
    previous, slot = None, "green"
    for number, release in enumerate(releases):
        rollout, start = f"r{number}", ServerStart(release)
        free = "blue" if slot == "green" else "green"
        events.append(
            {"event": "begin", "rollout": rollout, "release": release, "previous": previous, "slot": free}
            | {"start": start.to_json(), "at": str(number)}
        )
        if release in undone:
            events.append({"event": "undone", "rollout": rollout, "at": str(number)})
            continue
        slots = {free: start.to_json()}
        state = {"active": free, "release": release, "previous": previous, "slots": slots}
        events.append({"event": "committed", "rollout": rollout, "state": state, "at": str(number)})
        events.append({"event": "finished", "rollout": rollout, "at": str(number)})
        previous, slot = release, free
    return read_state(events)


@pytest.mark.parametrize(
    ("state", "to", "release"),
    [
        (journal(ONE, TWO), None, ONE),
        (journal(ONE, TWO, THREE), None, TWO),
        (journal(ONE, TWO, THREE, undone=(THREE,)), None, ONE),
        (journal(ONE, TWO, ONE), None, TWO),
        (journal(ONE, TWO, THREE), "11", ONE),
        (journal(ONE, TWO, THREE), "3", THREE),
    ],
)
def test_a_rollback_goes_to(state: TargetState, to: str | None, release: str) -> None:
    assert earlier_deployment(state, to)["release"] == release


@pytest.mark.parametrize(
    ("state", "to", "message"),
    [
        (journal(), None, "there is no earlier release"),
        (journal(ONE), None, "there is no earlier release"),
        (journal(ONE, TWO), "9", "no release that begins with '9'"),
        (journal(ONE, TWO, undone=(TWO,)), "2", "no release that begins with '2'"),
        (journal("a1", "a2"), "a", "more than one release begins with 'a'"),
    ],
)
def test_a_rollback_that_has_nowhere_to_go(state: TargetState, to: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        earlier_deployment(state, to)


# --- failures

STATE = journal(ONE)
TARGET = cast(OpenTarget, SimpleNamespace(host=SimpleNamespace(place=SimpleNamespace(title="/there"))))


def undone(error: BaseException, undo: Callable[[str], None] | None = lambda reason: None) -> ForgeError:
    return module._undone(undo, TARGET, cast(Exception, error), STATE, ["what was found before"])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CheckFailed("it is bad"), ExitCode.BAD, "it is bad; release 111111111111 serves, as before"),
        (Inconclusive("no verdict"), ExitCode.INCONCLUSIVE, "no verdict; release 111111111111 serves"),
        (EnvironmentLacks("no room"), ExitCode.ENVIRONMENT, "no room; release 111111111111 serves"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "the rollout was interrupted; release 111111111111 serves"),
        (AgentRefused("proxy", "it does not answer", {}), ExitCode.ENVIRONMENT, "it does not answer; release"),
        (AgentRefused("content", "not whole", {}), ExitCode.BAD, "not whole; release"),
        (OSError(errno.ENOSPC, "full"), ExitCode.ENVIRONMENT, "No space left on device; release 111111111111"),
        (ValueError("a defect"), ExitCode.INTERNAL, "ValueError: a defect; release 111111111111 serves, as before"),
    ],
)
def test_whatever_ended_it_is_undone_and_the_exit_code_is_true(
    error: BaseException, code: ExitCode, words: str
) -> None:
    reasons: list[str] = []
    said = undone(error, reasons.append)
    assert said.exit_code is code
    assert words in str(said)
    assert said.details[0] == "what was found before"
    assert len(reasons) == 1


def test_an_undo_that_fails_says_what_happens_next() -> None:
    def fail(reason: str) -> None:
        raise EnvironmentLacks("the connection to the target was lost")

    said = undone(CheckFailed("it is bad"), fail)
    assert said.exit_code is ExitCode.BAD
    assert "undoing it now failed: the connection to the target was lost" in said.message
    assert "dead-man timer" in said.message
    assert "as before" not in said.message


def test_a_lost_lock_means_that_the_target_went_back() -> None:
    def fail(reason: str) -> None:
        raise AgentRefused("lock", "the lock of this target is not held any more", {})

    said = undone(AgentRefused("lock", "the lock of this target is not held any more", {}), fail)
    assert said.exit_code is ExitCode.ENVIRONMENT
    assert "the target went back by itself or another command has taken it over" in said.message
    assert said.message.count("not held any more") == 1


def test_nothing_is_undone_where_it_cannot_be_asked_whether_it_was_committed() -> None:
    said = undone(EnvironmentLacks("the connection to the target was lost"), None)
    assert "undoing it now failed: the target cannot be reached" in said.message


@pytest.mark.parametrize(
    ("events", "answer"),
    [
        ([], False),
        ([{"event": "begin", "rollout": "r"}], False),
        ([{"event": "begin", "rollout": "r"}, {"event": "committed", "rollout": "r", "state": {}, "at": "1"}], True),
        ([{"event": "begin", "rollout": "s"}, {"event": "committed", "rollout": "s", "state": {}, "at": "1"}], False),
        (None, None),
    ],
)
def test_whether_it_was_committed(events: list[dict[str, Any]] | None, answer: bool | None) -> None:
    def read() -> SimpleNamespace:
        if events is None:
            raise EnvironmentLacks("lost")
        return SimpleNamespace(state=read_state(events))

    assert module._committed(cast(OpenTarget, SimpleNamespace(read=read)), "r") is answer


# --- what would change


def entry(folder: str, **changes: Any) -> dict[str, Any]:
    plain = {"folder": folder, "version": 1, "artifact": "a" * 64, "backend": "onnxruntime", "config": "c"}
    return {**plain, **changes}


def plan(before: list[dict[str, Any]], after: list[dict[str, Any]], old: ServerStart, new: ServerStart) -> Any:
    slot = {**old.to_json(), "document": {"models": before}}
    state = TargetState(1, {"active": "blue", "slots": {"blue": slot}, "release": old.release}, None)
    return changes_between(state, Bundle(new.release, None, {}, [], (), False, {"models": after}), new)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ([entry("net")], [entry("net")], ()),
        ([], [entry("net")], (ModelChange("net", "added", ("version 1",)),)),
        ([entry("net")], [], (ModelChange("net", "removed", ()),)),
        ([entry("net")], [entry("net", version=2)], (ModelChange("net", "changed", ("version 1 → 2",)),)),
        (
            [entry("net")],
            [entry("net", artifact="b" * 64)],
            (ModelChange("net", "changed", ("artifact aaaaaaaaaaaa → bbbbbbbbbbbb",)),),
        ),
        (
            [entry("net")],
            [entry("net", backend="python", config="d")],
            (ModelChange("net", "changed", ("backend onnxruntime → python", "config.pbtxt")),),
        ),
    ],
)
def test_the_models_that_differ(
    before: list[dict[str, Any]], after: list[dict[str, Any]], changes: tuple[ModelChange, ...]
) -> None:
    found = plan(before, after, ServerStart(ONE), ServerStart(TWO))
    assert found.models == changes
    assert found.empty == (not changes)


def test_what_differs_in_the_server() -> None:
    old = ServerStart(ONE, ("--a=1", "--b=2"), "image@sha256:1", settings={"cpus": 1})
    new = ServerStart(TWO, ("--a=1", "--b=3"), "image@sha256:2", settings={"cpus": 2})
    assert plan([], [], old, new).server == (
        "- --b=2",
        "+ --b=3",
        "image image@sha256:1 → image@sha256:2",
        "cpus: 1 → 2",
    )
    unknown = ServerStart(TWO, ("--a=1", "--b=2"), None, settings={"cpus": 1})
    assert plan([], [], old, unknown).server == ()


def test_on_a_new_target_everything_is_added() -> None:
    made = Bundle(ONE, None, {}, [], (), False, {"models": [entry("net"), entry("tok")]})
    found = changes_between(TargetState(0, None, None), made, ServerStart(ONE))
    assert [item.folder for item in found.models] == ["net", "tok"]
    assert found.server == ()
