"""What a journal means, wherever it was cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.rollout.journal import Journal, TargetState, read_state
from tritonforge.rollout.place import AgentRefused, LocalPlace
from tritonforge.rollout.points import lost

STEPS = ("deliver", "start", "ready", "shift-50", "watch-50")
Event = dict[str, Any]


@st.composite
def rollouts(draw: st.DrawFn) -> list[Event]:
    """Events of some rollouts, each of which ended in one of the ways that there are; the last may be cut off."""
    events: list[Event] = []
    release, slot = None, "green"
    for number in range(draw(st.integers(1, 5))):
        name, new = f"r{number}", f"release{number}"
        slot = "blue" if slot == "green" else "green"
        events.append({"event": "begin", "rollout": name, "release": new, "previous": release, "slot": slot})
        reached = draw(st.integers(0, len(STEPS)))
        for step in STEPS[:reached]:
            events.append({"event": "intend", "rollout": name, "step": step})
            events.append({"event": "done", "rollout": name, "step": step, "result": {}})
        how = draw(st.sampled_from(["committed", "failed", "reverted", "interrupted"]))
        if how == "committed":
            state = {"release": new, "previous": release, "active": slot, "slots": {slot: {"release": new}}}
            events += [
                {"event": "committed", "rollout": name, "state": state},
                {"event": "finished", "rollout": name},
            ]
            release = new
            continue
        if how == "failed" and reached < len(STEPS):
            events.append({"event": "intend", "rollout": name, "step": STEPS[reached]})
            events.append({"event": "failed", "rollout": name, "step": STEPS[reached], "error": "it broke", "code": 1})
        if how == "reverted":
            events.append({"event": "reverted", "rollout": name, "by": "dead-man timer"})
        events += [
            {"event": "undoing", "rollout": name, "reason": "because"},
            {"event": "undone", "rollout": name},
        ]
    days = draw(st.permutations(range(len(events))))  # a clock that was set makes times that do not grow
    return [{**event, "at": f"2026-01-01T00:{day:02}:00Z"} for event, day in zip(events, days, strict=True)]


@given(rollouts(), st.data())
def test_any_beginning_of_a_journal_is_consistent(events: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(events)))
    state = read_state(events[:cut])
    commits = [event for event in events[:cut] if event["event"] == "committed"]
    assert state.events == cut
    assert state.release == (commits[-1]["state"]["release"] if commits else None)
    begun = [event for event in events[:cut] if event["event"] == "begin"]
    assert [item["rollout"] for item in state.history] == [event["rollout"] for event in begun]
    closed = {event["rollout"] for event in events[:cut] if event["event"] in ("finished", "undone")}
    still = [event["rollout"] for event in begun if event["rollout"] not in closed]
    assert ([] if state.unfinished is None else [state.unfinished.rollout]) == still
    committed = {event["rollout"] for event in commits}
    assert {item["rollout"] for item in state.history if item["outcome"] == "deployed"} == committed
    undone = {item["rollout"] for item in state.history if item["outcome"] == "undone"}
    assert undone == closed - committed
    if state.unfinished is not None:
        assert state.unfinished.committed == (state.unfinished.rollout in committed)
        assert not (state.unfinished.committed and state.unfinished.undoing)
        assert set(state.unfinished.done) <= set(STEPS)
        assert state.unfinished.intended not in state.unfinished.done


@given(rollouts(), st.randoms())
def test_lines_that_belong_to_no_rollout_change_nothing(events: list[Event], random: Any) -> None:
    mixed = list(events)
    for kind in ("intend", "done", "finished", "adopted", "note"):
        mixed.insert(random.randint(0, len(mixed)), {"event": kind, "rollout": "unknown", "step": "x", "at": "t"})
    plain, other = read_state(events), read_state(mixed)
    assert (other.committed, other.unfinished, list(other.history)) == (
        plain.committed,
        plain.unfinished,
        list(plain.history),
    )


BEGIN = {"event": "begin", "rollout": "r", "release": "new", "previous": None, "slot": "blue", "at": "1"}


@pytest.mark.parametrize(
    ("events", "meant"),
    [
        ([], {"committed": None, "unfinished": None}),
        ([{"event": "intend", "step": "start"}], {"intended": "start", "done": {}}),
        (
            [{"event": "intend", "step": "start"}, {"event": "done", "step": "start", "result": {"a": 1}}],
            {"intended": None, "done": {"start": {"a": 1}}},
        ),
        ([{"event": "reverted", "by": "dead-man timer"}], {"reverted": True, "undoing": True, "committed": False}),
        ([{"event": "undoing", "reason": "x"}], {"reverted": False, "undoing": True}),
        ([{"event": "committed", "state": {"release": "new"}}], {"committed": True, "undoing": False}),
    ],
)
def test_what_is_known_of_an_unfinished_rollout(events: list[Event], meant: Mapping[str, Any]) -> None:
    if not events:
        assert (read_state([]).committed, read_state([]).unfinished) == (None, None)
        return
    state = read_state([BEGIN, *({**event, "rollout": "r", "at": "2"} for event in events)])
    assert state.unfinished is not None
    assert {name: getattr(state.unfinished, name) for name in meant} == meant


def test_why_a_rollout_ended_is_kept() -> None:
    failed = {"event": "failed", "step": "prove", "error": "it answers wrongly", "rollout": "r", "at": "2"}
    events = [BEGIN, failed, {"event": "undoing", "rollout": "r", "at": "3"}]
    events.append({"event": "undone", "rollout": "r", "at": "4"})
    (entry,) = read_state(events).history
    assert (entry["outcome"], entry["reason"], entry["ended"]) == ("undone", "it answers wrongly", "4")


# --- writing


class Cut(LocalPlace):
    """A place whose answer to the next append is lost on its way."""

    lose = 0

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        said = super().call(operation, arguments, timeout=timeout)
        if operation == "append" and self.lose:
            self.lose -= 1
            raise lost("cut")
        return said


@pytest.fixture
def place(tmp_path: Path) -> Cut:
    place = Cut(tmp_path / "root")
    place.call("lock", {"token": "t", "holder": {"id": "1"}})
    return place


def kinds(place: LocalPlace) -> list[str]:
    return [event["event"] for event in place.call("read")["journal"]]


def lose_one(place: Cut, add: Callable[[], None]) -> None:
    place.lose = 1
    with pytest.raises(Exception, match="connection to the target was lost"):
        add()


def test_the_next_event_goes_on_after_an_answer_that_was_lost(place: Cut) -> None:
    journal = Journal(place, "t", "r", 0)
    journal.add("begin", release="a")
    lose_one(place, lambda: journal.add("intend", step="x"))
    journal.add("undoing", reason="lost")
    assert kinds(place) == ["begin", "intend", "undoing"]


def test_an_event_whose_answer_was_lost_is_not_written_twice(place: Cut) -> None:
    journal = Journal(place, "t", "r", 0)
    lose_one(place, lambda: journal.add("committed", state={"release": "a"}, items=("tuples", "are", "lists")))
    journal.add("committed", state={"release": "a"}, items=("tuples", "are", "lists"))
    journal.add("finished")
    assert kinds(place) == ["committed", "finished"]


def test_what_somebody_else_wrote_stops_it(place: Cut) -> None:
    journal = Journal(place, "t", "r", 0)
    journal.add("begin")
    place.call("append", {"token": "t", "event": {"event": "begin", "rollout": "another"}})
    with pytest.raises(AgentRefused, match="somebody else wrote to the journal"):
        journal.add("intend", step="x")
    assert kinds(place) == ["begin", "begin"]


def test_so_does_a_target_that_went_back_by_itself(place: Cut) -> None:
    journal = Journal(place, "t", "r", 0)
    journal.add("begin")
    place.call("append", {"token": "t", "event": {"event": "reverted", "rollout": "r"}})
    with pytest.raises(AgentRefused, match="somebody else wrote"):
        journal.add("committed", state={})
    state: TargetState = read_state(place.call("read")["journal"])
    assert state.committed is None
