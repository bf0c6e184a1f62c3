"""What comes back from the agent, as an answer or as one clear error."""

from __future__ import annotations

import gc
import json
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
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


def test_the_agent_stays_for_the_next_operation_and_outlives_what_tells_a_command_to_stop(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "root")
    place.call("hello")
    (agent,) = [child for child in psutil.Process().children() if str(place.root) in child.cmdline()]
    for number in (signal.SIGINT, signal.SIGTERM):
        agent.send_signal(number)
    place.call("read")
    assert [child for child in psutil.Process().children() if str(place.root) in child.cmdline()] == [agent]


def test_an_agent_that_was_killed_between_two_operations_is_replaced(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "root")
    place.call("hello")
    (agent,) = [child for child in psutil.Process().children() if str(place.root) in child.cmdline()]
    agent.kill()
    agent.wait(10)
    assert place.call("read")["journal"] == []


def test_operations_that_overlap_have_an_agent_each(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "root")
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: place.call("read")["journal"], range(40)))
    assert told == [[]] * 40


def test_agents_end_with_their_place(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "root")
    place.call("hello")
    root = str(place.root)
    assert any(root in child.cmdline() for child in psutil.Process().children())
    del place
    gc.collect()
    assert not any(root in child.cmdline() for child in psutil.Process().children())
