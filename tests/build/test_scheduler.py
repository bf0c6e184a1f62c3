from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build.conftest import Toys
from tritonforge.build.executor import Task
from tritonforge.build.scheduler import Budget, Schedule
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, SpecError


def test_a_result_reads_what_stands_before_it(toys: Toys) -> None:
    a, b = toys.node("a"), toys.node("b")
    c = toys.node("c", {"left": a.id, "right": b.id})
    results = toys.run(c, b, a)
    assert {name: result.status for name, result in results.items()} == dict.fromkeys((a.id, b.id, c.id), "built")
    assert toys.text(results[c.id]) == "abc"
    assert results[c.id].reasons == ("it was never built",)


def test_what_is_in_the_store_does_not_run_again(toys: Toys) -> None:
    nodes = [toys.node("a"), toys.node("b", {"in": "a/toy"})]
    first = toys.run(*nodes)
    again = toys.run(*nodes)
    assert [result.status for result in again.values()] == ["cached", "cached"]
    assert [result.artifact for result in again.values()] == [result.artifact for result in first.values()]
    assert len(toys.trace()) == 4


def test_only_what_changed_and_what_stands_on_it_runs(toys: Toys) -> None:
    def nodes(text: str) -> list[Any]:
        return [toys.node("a", text=text), toys.node("b", {"in": "a/toy"}), toys.node("c")]

    before = toys.run(*nodes("one"))

    def remember(schedule: Schedule) -> None:
        schedule.before = {name: result.material for name, result in before.items()}

    after = toys.run(*nodes("two"), change=remember)
    assert {name: result.status for name, result in after.items()} == {
        "a/toy": "built",
        "b/toy": "built",
        "c/toy": "cached",
    }
    assert after["a/toy"].reasons == ("configuration 'text' changed: one → two",)
    assert after["b/toy"].reasons[0].startswith("input 'in' changed (")


def test_equal_results_stop_a_change(toys: Toys) -> None:
    toys.run(toys.node("a"), toys.node("b", {"in": "a/toy"}))
    again = toys.run(toys.node("a", unused=1), toys.node("b", {"in": "a/toy"}))
    assert {name: result.status for name, result in again.items()} == {"a/toy": "built", "b/toy": "cached"}


class TestLimits:
    @pytest.mark.parametrize(
        ("config", "cores", "memory", "most"),
        [
            ({}, 2, 1 << 30, 2),
            ({}, 1, 1 << 30, 1),
            ({"cores": 2}, 2, 1 << 30, 1),
            ({"memory": 600}, 3, 1000, 1),
            ({"memory": 500}, 3, 1000, 2),
            ({"memory": 5000}, 2, 1000, 1),  # more than there is: it runs, but alone
            ({"cores": 9}, 2, 1 << 30, 1),
        ],
        ids=str,
    )
    def test_steps_run_side_by_side_within_cores_and_memory(
        self, toys: Toys, config: dict[str, int], cores: int, memory: int, most: int
    ) -> None:
        nodes = [toys.node(name, sleep=0.1, meet=most, **config) for name in "abc"]
        toys.run(*nodes, cores=cores, memory=memory)
        assert toys.most_at_once() == most
        assert len(toys.trace()) == 6

    def test_the_spec_can_say_how_much_memory_a_model_needs(self, toys: Toys) -> None:
        def say(schedule: Schedule) -> None:
            schedule.memory = {"a": 900, "b": 900}

        toys.run(toys.node("a", sleep=0.2), toys.node("b", sleep=0.2), memory=1000, change=say)
        assert toys.most_at_once() == 1

    def test_a_step_is_in_line_for_each_worker_and_begins_when_another_ends(self, toys: Toys) -> None:
        events: list[str] = []
        given: list[str] = []

        def watch(schedule: Schedule) -> None:
            submit = schedule.executor.submit

            def note(task: Task, begun: Callable[[], None]) -> Future[str]:
                given.append(task.node)
                return submit(task, begun)

            schedule.executor.submit = note  # type: ignore[method-assign]
            schedule.started = lambda node: events.append(f"{node.model} begins, {len(given)} given")
            schedule.finished = lambda result: events.append(f"{result.node.model} ends, {len(given)} given")

        results = toys.run(*(toys.node(name, sleep=0.3) for name in "abc"), cores=1, change=watch)
        assert events[:2] == ["a begins, 0 given", "a ends, 2 given"]
        assert [event.split(",")[0] for event in events[2:]] == ["b begins", "b ends", "c begins", "c ends"]
        assert toys.most_at_once() == 1
        assert all(0.2 < result.seconds < 0.6 for result in results.values() if result.node.model != "a")

    def test_a_steps_time_is_its_own_whenever_it_is_seen_to_begin(self, toys: Toys) -> None:
        def dawdle(schedule: Schedule) -> None:
            schedule.finished = lambda result: time.sleep(0.5)

        results = toys.run(*(toys.node(name, sleep=0.3) for name in "abc"), cores=1, change=dawdle)
        assert all(result.seconds >= 0.3 for result in results.values()), results

    def test_there_is_time_for_something_while_the_first_steps_run(self, toys: Toys) -> None:
        found: list[list[tuple[str, str]]] = []

        def use(schedule: Schedule) -> None:
            schedule.meanwhile = lambda: found.append(toys.trace())

        toys.run(toys.node("a", sleep=0.3), toys.node("b", sleep=0.1), change=use)
        assert len(found) == 1
        assert "end" not in [what for what, _ in found[0]]
        toys.run(toys.node("a", sleep=0.3), toys.node("b", sleep=0.1), change=use)
        assert len(found) == 1, "nothing ran"

    @pytest.mark.parametrize("config", [{"cores": 2}, {"memory": 600}])
    def test_no_step_is_in_line_that_could_not_run_beside_the_others(self, toys: Toys, config: dict[str, int]) -> None:
        waiting: list[int] = []

        def watch(schedule: Schedule) -> None:
            submit = schedule.executor.submit
            futures: list[Future[str]] = []

            def note(task: Task, begun: Callable[[], None]) -> Future[str]:
                waiting.append(sum(not future.done() for future in futures))
                futures.append(submit(task, begun))
                return futures[-1]

            schedule.executor.submit = note  # type: ignore[method-assign]

        toys.run(*(toys.node(name, sleep=0.1, **config) for name in "abc"), memory=1000, change=watch)
        assert waiting == [0, 0, 0]

    def test_jobs_bound_the_cores(self) -> None:
        assert Budget.of_this_machine(3).cores == 3
        assert Budget.of_this_machine(3).memory > 0


class TestTwins:
    def test_a_key_that_two_nodes_share_runs_once(self, toys: Toys) -> None:
        nodes = [replace(toys.node("same", sleep=0.2), id=f"{name}/toy", model=name) for name in "abc"]
        results = toys.run(*nodes)
        assert toys.trace() == [("start", "same"), ("end", "same")]
        assert sorted(result.status for result in results.values()) == ["built", "cached", "cached"]
        assert len({result.artifact for result in results.values()}) == 1

    def test_it_fails_once_for_both(self, toys: Toys) -> None:
        nodes = [replace(toys.node("same", sleep=0.2, end="forge"), id=f"{name}/toy", model=name) for name in "ab"]
        results = toys.run(*nodes)
        assert [result.status for result in results.values()] == ["failed", "failed"]
        assert len(toys.trace()) == 1


FAILURES: dict[str, tuple[type[ForgeError], str, str | None]] = {
    "forge": (SpecError, "it is your spec", None),
    "bug": (CheckFailed, "a/toy raised KeyError", "'no such key'"),
    "kill": (CheckFailed, "the worker of a/toy died", "signal SIGKILL"),
    "exit": (CheckFailed, "the worker of a/toy died", "exit code 7"),
    "sys.exit": (CheckFailed, "the worker of a/toy died", "exit code 3"),
    "full": (EnvironmentLacks, "a/toy stopped: No space left on device", None),
}


@pytest.mark.parametrize("end", FAILURES)
def test_a_failure_is_told_with_its_log_and_skips_only_what_stands_on_it(toys: Toys, end: str) -> None:
    cls, message, found = FAILURES[end]
    results = toys.run(
        toys.node("a", end=end),
        toys.node("b", {"in": "a/toy"}),
        toys.node("c", {"in": "b/toy"}),
        toys.node("d"),
        toys.node("e", {"in": "d/toy"}),
        cores=1,
    )
    assert {name[0]: result.status for name, result in results.items()} == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
        "d": "built",
        "e": "built",
    }
    error, log = results["a/toy"].error, results["a/toy"].log
    assert type(error) is cls
    assert error.message == message
    assert found is None or error.found == found
    assert log is not None
    assert error.details[-1] == f"log: {log}"
    assert log.read_text().startswith("this is the log of a")
    assert results["b/toy"].reasons == ("a/toy failed",)
    assert results["c/toy"].reasons == ("b/toy failed",)
    assert toys.store.lookup(str(results["a/toy"].key)) is None
    if end == "kill":
        assert "this is the log of a" in error.details
        assert "memory_mb" in str(error.hint)
    assert list((toys.store.root / "staging").iterdir()) == [] or end in ("kill", "exit")


def test_what_failed_is_tried_again(toys: Toys) -> None:
    node = toys.node("a", end="forge")
    for _ in range(2):
        assert toys.run(node)["a/toy"].status == "failed"
    assert len(toys.trace()) == 2


def test_a_tool_that_is_not_installed_fails_its_node_alone(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritonforge.build import scheduler

    def lacking(node: Any, *rest: Any) -> Any:
        if node.model == "a":
            raise EnvironmentLacks("the package onnxslim is not installed")
        return original(node, *rest)

    original = scheduler.key_of
    monkeypatch.setattr(scheduler, "key_of", lacking)
    results = toys.run(toys.node("a"), toys.node("b", {"in": "a/toy"}), toys.node("c"))
    assert [results[f"{name}/toy"].status for name in "abc"] == ["failed", "skipped", "built"]


def test_forced_nodes_run_regardless(toys: Toys) -> None:
    nodes = [toys.node("a"), toys.node("b")]
    toys.run(*nodes)

    def force(schedule: Schedule) -> None:
        schedule.force = frozenset({"a/toy"})

    results = toys.run(*nodes, change=force)
    assert {name: (result.status, result.reasons) for name, result in results.items()} == {
        "a/toy": ("built", ("forced",)),
        "b/toy": ("cached", ()),
    }


def test_every_event_is_told_once(toys: Toys) -> None:
    started: list[str] = []
    finished: list[str] = []

    def listen(schedule: Schedule) -> None:
        schedule.started = lambda node: started.append(node.id)
        schedule.finished = lambda result: finished.append(result.node.id)

    nodes = [toys.node("a", end="bug"), toys.node("b", {"in": "a/toy"}), toys.node("c")]
    toys.run(*nodes, change=listen)
    assert sorted(started) == ["a/toy", "c/toy"]
    assert sorted(finished) == ["a/toy", "b/toy", "c/toy"]


def test_a_missing_step_is_told(toys: Toys, tmp_path: Path) -> None:
    results = toys.run(replace(toys.node("a"), step="no-such-step"))
    assert results["a/toy"].status == "failed"
    assert "no step 'no-such-step'" in str(results["a/toy"].error)
