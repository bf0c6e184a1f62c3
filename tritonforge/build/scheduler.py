"""Run what is not in the store, in parallel, bounded by cores and memory."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tritonforge.artifact.store import KeyRecord, LocalStore
from tritonforge.build.executor import Executor, Task, framework_of
from tritonforge.build.graph import Graph, Node
from tritonforge.build.key import Keyed, key_of, memory_of, why
from tritonforge.errors import ForgeError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tritonforge.artifact.remote.shared import SharedStore

Status = Literal["cached", "fetched", "built", "failed", "skipped"]

ASKED_AT_ONCE: Final = 64
"""Keys that the team's store is asked for at a time."""


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
    def of_this_machine(cores: int) -> Budget:
        """So many cores, and four fifths of the memory that is free now."""
        import psutil

        return Budget(cores, int(psutil.virtual_memory().available * 0.8))


@dataclass(slots=True)
class Schedule:
    """How to run a graph: ``before`` is the last build's material by node id; ``force`` the nodes to run regardless.

    ``meanwhile`` is called once, when the first steps run. ``shared`` is the team's store. ``wanted`` are the nodes
    whose files are needed afterwards (all, without it): the files of others are fetched from there only when a step
    reads them.
    """

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
    shared: SharedStore | None = None
    wanted: frozenset[str] | None = None
    meanwhile: Callable[[], None] | None = None

    def wants(self, node: Node) -> bool:
        """Whether the files of a node must be here in the end."""
        return self.wanted is None or node.id in self.wanted

    def known(self, node: Node, key: str) -> KeyRecord | None:
        """What the local store has for a node: its files too, where they are wanted."""
        return self.store.lookup(key) if self.wants(node) else self.store.known(key)


class _Away(Exception):
    """Files that a step reads were left in the team's store, and cannot be had any more; ``nodes`` made them."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.nodes = frozenset(nodes)


@dataclass(slots=True)
class _Running:
    node: Node
    keyed: Keyed
    reasons: tuple[str, ...]
    since: float
    log: Path
    memory: int

    announced: bool = False

    def begin(self) -> None:
        """The executor's word that it begins."""
        self.since = time.monotonic()
        self.log.unlink(missing_ok=True)

    def announce(self, schedule: Schedule) -> None:
        """Say once that it runs."""
        if not self.announced:
            self.announced = True
            schedule.started(self.node)


def inputs_of(node: Node, results: Mapping[str, NodeResult]) -> dict[str, str]:
    """The digests of a node's input artifacts by role, as far as they were made."""
    return {role: digest for role, other in node.inputs.items() if (digest := results[other].artifact) is not None}


def _input_bytes(node: Node, results: Mapping[str, NodeResult], store: LocalStore, sizes: dict[str, int]) -> int:
    """How much a node reads, in bytes; ``sizes`` keeps those of artifacts between calls."""
    total = sum(file.size for file in node.sources.values())
    for other in node.inputs.values():
        digest = results[other].artifact
        if digest is not None and digest not in sizes:
            artifact = store.manifest(digest)
            sizes[digest] = 0 if artifact is None else sum(entry.size for entry in artifact.files.values())
        total += 0 if digest is None else sizes[digest]
    return total


def run_graph(graph: Graph, schedule: Schedule) -> dict[str, NodeResult]:
    """Every node's result, by id. A failed node skips what stands on it and nothing else.

    A key that two nodes share runs once. On an interrupt everything stops; what was finished is in the store.
    """
    forced = set(schedule.force)
    built: set[str] = set()
    while True:
        results: dict[str, NodeResult] = {}
        try:
            _run(graph, schedule, forced, results)
        except _Away as away:
            # Their steps run here after all. What else was done until now is in the store.
            built |= {name for name, result in results.items() if result.status == "built"}
            forced -= built
            for name in away.nodes:
                schedule.store.forget(str(results[name].key))
            continue
        return {
            name: replace(result, status="built") if name in built and result.status == "cached" else result
            for name, result in results.items()
        }


def _run(graph: Graph, schedule: Schedule, force: Collection[str], results: dict[str, NodeResult]) -> None:
    place = {name: number for number, name in enumerate(graph.nodes)}
    lacking = {name: len(set(node.inputs.values())) for name, node in graph.nodes.items()}
    readers: dict[str, list[Node]] = {name: [] for name in graph.nodes}
    for node in graph.nodes.values():
        for other in set(node.inputs.values()):
            readers[other].append(node)
    nodes = list(graph.nodes.values())
    admissible = [number for number, node in enumerate(nodes) if not lacking[node.id]]  # a heap: in the graph's order
    unasked: deque[_Running] = deque()
    asking: dict[Future[KeyRecord | None], _Running] = {}
    bringing: dict[Future[bool], _Running] = {}
    running: dict[Future[str], _Running] = {}
    in_flight: dict[str, Future[str]] = {}
    ready: list[_Running] = []
    ready_keys: Counter[str] = Counter()
    lost: set[str] = set()
    sizes: dict[str, int] = {}
    shared, meanwhile = schedule.shared, schedule.meanwhile

    def finish(result: NodeResult) -> None:
        results[result.node.id] = result
        for reader in readers[result.node.id]:
            lacking[reader.id] -= 1
            if not lacking[reader.id]:
                heappush(admissible, place[reader.id])
        if shared is not None and result.status == "built" and result.key is not None:
            shared.keep(result.key, anew=result.node.id in force)
        schedule.finished(result)

    def line_up(item: _Running) -> None:
        ready.append(item)
        ready_keys[item.keyed.key] += 1

    def leave(item: _Running) -> None:
        ready.remove(item)
        ready_keys[item.keyed.key] -= 1

    def admit() -> None:
        """Move nodes whose inputs are known to where they are asked for or run, or straight to a result."""
        while admissible:
            node = nodes[heappop(admissible)]
            broken = [other for other in node.inputs.values() if results[other].artifact is None]
            if broken:
                finish(NodeResult(node, "skipped", reasons=(f"{broken[0]} failed",)))
                continue
            try:
                keyed = key_of(node, inputs_of(node, results))
            except ForgeError as error:
                finish(NodeResult(node, "failed", error=error))
                continue
            forced = node.id in force
            record = None if forced else schedule.known(node, keyed.key)
            if record is not None:
                finish(NodeResult(node, "cached", keyed.key, record.artifact, keyed.material))
                continue
            reasons = ["forced"] if forced else why(keyed.material, schedule.before.get(node.id))
            log = schedule.logs / f"{node.id.replace('/', '.')}.log"
            memory = schedule.memory.get(node.model)
            if memory is None:
                memory = memory_of(node, _input_bytes(node, results, schedule.store, sizes))
            item = _Running(node, keyed, tuple(reasons), 0.0, log, memory)
            if shared is not None and not forced:
                unasked.append(item)
                continue
            if forced:
                schedule.store.forget(keyed.key)
            must_run(item)

    def must_run(item: _Running) -> None:
        """Nobody made it: it is run as soon as all that it reads is here."""
        away = {
            other
            for other in item.node.inputs.values()
            if schedule.store.artifact(str(results[other].artifact)) is None
        }
        if not away:
            line_up(item)
        elif shared is None:
            lost.update(away)
        else:
            bringing[shared.bring({str(results[other].key): other for other in sorted(away)})] = item

    def ask() -> None:
        while shared is not None and unasked and len(asking) < ASKED_AT_ONCE:
            item = unasked.popleft()
            facets = item.keyed.material["facets"]
            future = shared.find(item.keyed.key, facets, item.node.id, whole=schedule.wants(item.node))
            asking[future] = item

    def start() -> None:
        for item in list(ready):
            if len(running) >= 2 * schedule.budget.cores:
                break
            if item.keyed.key in in_flight:
                continue
            others = list(running.values())
            fits = _fits(item, others, schedule)
            if not fits and not _may_line_up(item, others, schedule):
                if sum(_cores(other, schedule) for other in others) >= schedule.budget.cores:
                    break  # the many others wait for their turn behind it
                continue
            if _waits(item, others, schedule):
                continue
            leave(item)
            if shared is not None:
                shared.expect(item.keyed.key, anew=item.node.id in force)
            if fits:
                item.announce(schedule)
            future = schedule.executor.submit(_task(item, results, schedule), item.begin)
            running[future] = item
            in_flight[item.keyed.key] = future

    def announce() -> None:
        """Say what runs by now: a step that was in line begins when another ends."""
        for item in running.values():
            if item.since:
                item.announce(schedule)

    def pause() -> None:
        """Until something ends; time in which cores stand idle for the team's store is that store's."""
        from concurrent.futures import FIRST_COMPLETED, wait

        before = time.monotonic()
        pending: list[Future[Any]] = [*running, *asking, *bringing]
        wait(pending, return_when=FIRST_COMPLETED, timeout=0.2)
        idle = sum(_cores(item, schedule) for item in running.values()) < schedule.budget.cores
        if shared is not None and idle and (asking or bringing):
            shared.stood_idle(time.monotonic() - before)

    while admissible or unasked or asking or bringing or ready or running:
        admit()
        ask()
        if not lost:
            start()
        elif not running:
            raise _Away(lost)
        announce()
        if not running and not asking and not bringing:
            continue
        if meanwhile is not None and running:
            meanwhile()
            meanwhile = None
        pause()
        for asked in [future for future in asking if future.done()]:
            item, record = asking.pop(asked), asked.result()
            status: Status = "fetched"
            if record is None:
                record, status = schedule.known(item.node, item.keyed.key), "cached"  # its twin may have run meanwhile
            if record is None:
                must_run(item)
            else:
                finish(NodeResult(item.node, status, item.keyed.key, record.artifact, item.keyed.material))
        for brought in [future for future in bringing if future.done()]:
            item = bringing.pop(brought)
            if brought.result():
                line_up(item)
            else:
                lost.update(
                    other
                    for other in item.node.inputs.values()
                    if schedule.store.artifact(str(results[other].artifact)) is None
                )
        for future in [future for future in running if future.done()]:
            item = running.pop(future)
            item.announce(schedule)
            del in_flight[item.keyed.key]
            finish(_result(item, future))
            if not ready_keys[item.keyed.key]:
                continue
            for twin in [other for other in ready if other.keyed.key == item.keyed.key]:
                leave(twin)
                finish(_result(twin, future, status="cached"))
    if lost:
        raise _Away(lost)


def _fits(item: _Running, running: Collection[_Running], schedule: Schedule) -> bool:
    """Whether a step can begin now, as far as cores and memory go; alone it always can."""
    cores = sum(_cores(other, schedule) for other in running) + _cores(item, schedule)
    memory = sum(other.memory for other in running) + item.memory
    return not running or (cores <= schedule.budget.cores and memory <= schedule.budget.memory)


def _may_line_up(item: _Running, running: Collection[_Running], schedule: Schedule) -> bool:
    """Whether a step may be given to the executor while all cores are taken, so that a worker need not wait for the
    next one. Each of those must have one core and no framework, as any of them can be the ones that run together."""
    everything = [*running, item]
    if sum(other.memory for other in everything) > schedule.budget.memory:
        return False
    return all(_cores(other, schedule) == 1 and framework_of(other.keyed.needs.tools) is None for other in everything)


def _waits(item: _Running, running: Iterable[_Running], schedule: Schedule) -> bool:
    """Whether a step waits for the worker that runs another step of its model: importing a framework a second time
    takes longer than that step, as a rule."""
    framework = framework_of(item.keyed.needs.tools)
    if framework is None or schedule.executor.warm(framework):
        return False
    return any(
        other.node.model == item.node.model and framework_of(other.keyed.needs.tools) == framework for other in running
    )


def _cores(item: _Running, schedule: Schedule) -> int:
    return min(item.keyed.needs.cores, schedule.budget.cores)


def _task(item: _Running, results: Mapping[str, NodeResult], schedule: Schedule) -> Task:
    return Task(
        node=item.node.id,
        step=item.node.step,
        config=item.node.config,
        inputs=inputs_of(item.node, results),
        sources={path: file.for_worker() for path, file in item.node.sources.items()},
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
