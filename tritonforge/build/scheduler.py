"""Run what is not in the store, in parallel, bounded by cores and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tritonforge.artifact.store import LocalStore
from tritonforge.build.executor import Executor, Task, framework_of
from tritonforge.build.graph import Graph, Node
from tritonforge.build.key import Keyed, key_of, why
from tritonforge.errors import ForgeError

Status = Literal["cached", "built", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What became of a node. ``seconds`` is wall time here; ``reasons`` say why it had to run."""

    node: Node
    status: Status
    key: str | None = None
    artifact: str | None = None
    material: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    error: ForgeError | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be used at once: cores, and memory in bytes."""

    cores: int
    memory: int

    @staticmethod
    def of_this_machine(jobs: int | None = None) -> Budget:
        """All cores that this process may use (or ``jobs``), and four fifths of the memory that is free now."""
        import psutil

        cores = jobs or len(os.sched_getaffinity(0))
        return Budget(cores, int(psutil.virtual_memory().available * 0.8))


@dataclass(slots=True)
class Schedule:
    """How to run a graph: ``before`` is the last build's material by node id; ``force`` the nodes to run regardless."""

    store: LocalStore
    executor: Executor
    budget: Budget
    logs: Path
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    force: frozenset[str] = frozenset()
    memory: Mapping[str, int] = field(default_factory=dict)
    timeouts: Mapping[str, int] = field(default_factory=dict)
    started: Callable[[Node], None] = lambda node: None
    finished: Callable[[NodeResult], None] = lambda result: None


@dataclass(slots=True)
class _Running:
    node: Node
    keyed: Keyed
    reasons: tuple[str, ...]
    since: float
    log: Path


def input_bytes(node: Node, results: Mapping[str, NodeResult], store: LocalStore) -> int:
    """How much a node reads, in bytes."""
    total = sum(file.size for file in node.sources.values())
    for other in node.inputs.values():
        digest = results[other].artifact
        artifact = None if digest is None else store.artifact(digest)
        total += 0 if artifact is None else sum(entry.size for entry in artifact.files.values())
    return total


def run_graph(graph: Graph, schedule: Schedule) -> dict[str, NodeResult]:
    """Every node's result, by id. A failed node skips what stands on it and nothing else.

    A key that two nodes share runs once. On an interrupt everything stops; what was finished is in the store.
    """
    results: dict[str, NodeResult] = {}
    waiting = dict(graph.nodes)
    running: dict[Future[str], _Running] = {}
    in_flight: dict[str, Future[str]] = {}
    ready: list[_Running] = []

    def finish(result: NodeResult) -> None:
        results[result.node.id] = result
        schedule.finished(result)

    def admit() -> bool:
        """Move nodes whose inputs are known to ``ready``, or straight to a result."""
        moved = False
        for node in list(waiting.values()):
            if any(other not in results for other in node.inputs.values()):
                continue
            del waiting[node.id]
            moved = True
            broken = [other for other in node.inputs.values() if results[other].artifact is None]
            if broken:
                finish(NodeResult(node, "skipped", reasons=(f"{broken[0]} failed",)))
                continue
            try:
                keyed = key_of(node, _inputs(node, results), input_bytes(node, results, schedule.store))
            except ForgeError as error:
                finish(NodeResult(node, "failed", error=error))
                continue
            forced = node.id in schedule.force
            record = None if forced else schedule.store.lookup(keyed.key)
            if record is not None:
                finish(NodeResult(node, "cached", keyed.key, record.artifact, keyed.material))
                continue
            if forced:
                schedule.store.forget(keyed.key)
            reasons = ["forced"] if forced else why(keyed.material, schedule.before.get(node.id))
            log = schedule.logs / f"{node.id.replace('/', '.')}.log"
            ready.append(_Running(node, keyed, tuple(reasons), 0.0, log))
        return moved

    def start() -> None:
        for item in list(ready):
            if item.keyed.key in in_flight:
                continue
            cores = sum(_cores(other, schedule) for other in running.values())
            memory = sum(_memory(other, schedule) for other in running.values())
            fits = cores + _cores(item, schedule) <= schedule.budget.cores
            fits = fits and memory + _memory(item, schedule) <= schedule.budget.memory
            if running and not fits:
                continue
            if _waits(item, running.values(), schedule):
                continue
            ready.remove(item)
            item.since = time.monotonic()
            item.log.unlink(missing_ok=True)
            schedule.started(item.node)
            future = schedule.executor.submit(_task(item, results, schedule))
            running[future] = item
            in_flight[item.keyed.key] = future

    while waiting or ready or running:
        while admit():
            pass
        start()
        if not running:
            continue
        done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=0.2)
        for future in done:
            item = running.pop(future)
            del in_flight[item.keyed.key]
            finish(_result(item, future))
            for twin in [other for other in ready if other.keyed.key == item.keyed.key]:
                ready.remove(twin)
                finish(_result(twin, future, status="cached"))
    return results


def _waits(item: _Running, running: Iterable[_Running], schedule: Schedule) -> bool:
    """Whether a step waits for the worker that runs another step of its model: importing a framework a second time
    takes longer than that step, as a rule."""
    framework = framework_of(item.keyed.needs.tools)
    if framework is None or schedule.executor.warm(framework):
        return False
    return any(
        other.node.model == item.node.model and framework_of(other.keyed.needs.tools) == framework for other in running
    )


def _inputs(node: Node, results: Mapping[str, NodeResult]) -> dict[str, str]:
    return {role: digest for role, other in node.inputs.items() if (digest := results[other].artifact) is not None}


def _cores(item: _Running, schedule: Schedule) -> int:
    return min(item.keyed.needs.cores, schedule.budget.cores)


def _memory(item: _Running, schedule: Schedule) -> int:
    return schedule.memory.get(item.node.model, item.keyed.needs.memory)


def _task(item: _Running, results: Mapping[str, NodeResult], schedule: Schedule) -> Task:
    return Task(
        node=item.node.id,
        step=item.node.step,
        config=item.node.config,
        inputs=_inputs(item.node, results),
        sources={path: {"path": str(file.path), "sha256": file.sha256} for path, file in item.node.sources.items()},
        key=item.keyed.key,
        store=str(schedule.store.root),
        log=str(item.log),
        cores=_cores(item, schedule),
        timeout_s=schedule.timeouts.get(item.node.model, 3600),
        tools=item.keyed.material["tools"],
        facets=item.keyed.material["facets"],
    )


def _result(item: _Running, future: Future[str], status: Status = "built") -> NodeResult:
    seconds = time.monotonic() - item.since if item.since else 0.0
    try:
        digest = future.result()
    except ForgeError as error:
        return NodeResult(
            item.node, "failed", item.keyed.key, None, item.keyed.material, seconds, item.reasons, error, item.log
        )
    return NodeResult(
        item.node, status, item.keyed.key, digest, item.keyed.material, seconds, item.reasons, None, item.log
    )
