"""Steps are noted before and after, and what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.journal import Journal
from tritonforge.rollout.steps import Step, run_steps


class Noted:
    """A journal that only remembers; it fails at the events that it is told to."""

    def __init__(self, broken: str = "") -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.broken = broken

    def add(self, event: str, **facts: Any) -> None:
        if event == self.broken:
            raise EnvironmentLacks("the disk refuses")
        self.events.append((event, facts))


def run(steps: list[Step], journal: Noted, done: Mapping[str, Any] | None = None) -> list[str]:
    words: list[str] = []
    run_steps(steps, cast(Journal, journal), done or {}, words.append)
    return words


def failing(error: Exception) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


def test_each_is_noted_before_and_after() -> None:
    journal = Noted()
    said = run([Step("one", "doing one", lambda: {"n": 1}), Step("two", "doing two", lambda: None)], journal)
    assert said == ["doing one", "doing two"]
    assert journal.events == [
        ("intend", {"step": "one"}),
        ("done", {"step": "one", "result": {"n": 1}}),
        ("intend", {"step": "two"}),
        ("done", {"step": "two", "result": {}}),
    ]


def test_what_is_done_is_left_out() -> None:
    journal = Noted()
    assert run([Step("one", "1", failing(AssertionError())), Step("two", "2", dict)], journal, {"one": {}}) == ["2"]
    assert [facts["step"] for _, facts in journal.events] == ["two", "two"]


def test_a_failure_is_noted_and_ends_it() -> None:
    journal = Noted()
    steps = [Step("one", "1", failing(CheckFailed("it is bad"))), Step("two", "2", failing(AssertionError()))]
    with pytest.raises(CheckFailed, match="it is bad"):
        run(steps, journal)
    assert journal.events[-1] == ("failed", {"step": "one", "error": "it is bad", "code": 1})


def test_a_failure_that_cannot_be_noted_is_still_the_one_that_is_told() -> None:
    with pytest.raises(CheckFailed, match="it is bad"):
        run([Step("one", "1", failing(CheckFailed("it is bad")))], Noted("failed"))


def test_nothing_is_done_that_could_not_be_noted_before() -> None:
    with pytest.raises(EnvironmentLacks):
        run([Step("one", "1", failing(AssertionError()))], Noted("intend"))
