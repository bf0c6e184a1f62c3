"""What comes back from the agent, as an answer or as one clear error."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tritonforge.errors import EnvironmentLacks, ExitCode
from tritonforge.rollout.place import READS, AgentRefused, LocalPlace, answer_of, call_agent


def test_an_answer() -> None:
    assert answer_of(b'{"ok": {"a": 1}}', "there") == {"a": 1}
    assert answer_of(b'{"ok": null}', "there") is None


@pytest.mark.parametrize(("output", "found"), [(b"", "nothing"), (b"Segmentation fault\n", "Segmentation fault")])
def test_what_is_no_answer(output: bytes, found: str) -> None:
    with pytest.raises(EnvironmentLacks, match="the agent at there gave no answer") as caught:
        answer_of(output, "there")
    assert caught.value.found == found


def said(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "no", "facts": {"holder": "ann", "none": None}}}).encode()


@pytest.mark.parametrize(("code", "hint"), [("full", "free some space there"), ("os", "None")])
def test_a_disk_that_refuses_is_the_environment(code: str, hint: str) -> None:
    with pytest.raises(EnvironmentLacks, match="the disk of there refuses") as caught:
        answer_of(said(code), "there")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    assert hint in str(caught.value.hint)


def test_a_refusal_has_its_code_and_survives_pickling() -> None:
    with pytest.raises(AgentRefused) as caught:
        answer_of(said("locked"), "there")
    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert (error.code, error.facts["holder"], error.message) == ("locked", "ann", "no")
        assert error.details == ("holder: ann",)


POINTS = [
    ("lock", {}, "agent.lock"),
    ("append", {"event": {"event": "begin"}}, "agent.append.begin"),
    ("append", {"event": {"event": "done", "step": "shift-5"}}, "agent.append.done.shift-5"),
]


@pytest.mark.parametrize(("operation", "arguments", "name"), POINTS)
def test_what_changes_the_target_has_a_point_before_and_after(
    operation: str, arguments: dict[str, object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("TRITONFORGE_TRACE", str(trace))
    call_agent(operation, arguments, lambda *_: b'{"ok": null}', "there")
    passed = [line.split()[1] for line in trace.read_text().splitlines()]
    assert passed == [f"rollout.{name}.before", f"rollout.{name}.after"]


@pytest.mark.parametrize("operation", sorted(READS))
def test_what_changes_nothing_has_none(operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    monkeypatch.setenv("TRITONFORGE_TRACE", str(trace))
    call_agent(operation, {}, lambda *_: b'{"ok": null}', "there")
    assert not trace.exists()


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_connection_that_is_lost_is_one_clear_error(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFORGE_FAULT", f"rollout.agent.lock.{side}:cut")
    done: list[str] = []

    def run(operation: str, data: bytes) -> bytes:
        done.append(operation)
        return b'{"ok": null}'

    with pytest.raises(EnvironmentLacks, match="the connection to the target was lost") as caught:
        call_agent("lock", {}, run, "there")
    assert done == ([] if side == "before" else ["lock"])
    assert "--resume" in str(caught.value.hint)


def test_files_are_linked_where_that_can_be_and_are_what_they_were(tmp_path: Path) -> None:
    place, source = LocalPlace(tmp_path / "root"), tmp_path / "source"
    source.write_bytes(b"content")
    moved: list[int] = []
    place.send({"a" * 64: source, "b" * 64: source}, moved.append)
    assert moved == [7, 7]
    assert (place.root / "incoming" / ("a" * 64)).read_bytes() == b"content"
    assert source.read_bytes() == b"content"


def test_a_source_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "root")
    with pytest.raises(EnvironmentLacks, match="cannot copy the release"):
        place.send({"a" * 64: tmp_path / "absent"}, lambda part: None)


def test_an_operation_that_takes_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match=r"took longer than 0\.001 s"):
        LocalPlace(tmp_path / "root").call("hello", timeout=0.001)
