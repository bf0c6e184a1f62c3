"""``build``: run what changed, compose a release for each platform, publish it."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.actions.compose_inputs import compose_inputs, numbers
from tritonforge.actions.shared import shared_store
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.digest import digest_of
from tritonforge.build.executor import LocalExecutor
from tritonforge.build.graph import Graph, Node
from tritonforge.build.planning import plan_graph
from tritonforge.build.record import BuildRecord, read_record, write_record
from tritonforge.build.scheduler import Budget, NodeResult, Schedule, run_graph
from tritonforge.durable import disk_errors, folder_lock, sweep
from tritonforge.errors import ForgeError, Interrupted, UsageError, did_you_mean
from tritonforge.interruption import interruptible
from tritonforge.repository.release import Release
from tritonforge.spec.lock import Lock, read_lock, write_lock
from tritonforge.spec.platform import Platform

if TYPE_CHECKING:
    from tritonforge.artifact.remote.shared import SharedOutcome, SharedStore


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """``force`` names models whose steps run regardless (an empty tuple: none; ``('*',)``: all)."""

    platforms: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    jobs: int | None = None
    update_sources: bool = False
    wait: bool = True

    @property
    def cores(self) -> int:
        """How many steps run at once: ``jobs``, else as many as this process may use cores."""
        return self.jobs or len(os.sched_getaffinity(0))


class Observer:
    """Told what happens while it happens; the command line draws it."""

    def waiting(self, holder: str) -> None:
        """Another build holds the lock."""

    def platform(self, platform: Platform, graph: Graph) -> None:
        """A platform's graph is about to run."""

    def started(self, node: Node) -> None:
        """A step runs."""

    def finished(self, result: NodeResult) -> None:
        """A step is done, was not needed, or failed."""

    def warning(self, text: str) -> None:
        """Something is wrong with the team's store; the build goes on without it."""

    def sending(self, steps: int, size: int) -> None:
        """All is built; so many steps and bytes are still to be sent to the team's store."""


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """Why a model was not built."""

    model: str
    error: ForgeError
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class PlatformOutcome:
    """What a build did for one platform; ``release`` is None where a model failed."""

    platform: Platform
    results: dict[str, NodeResult]
    failures: tuple[ModelFailure, ...]
    release: Release | None = None
    new: bool = False
    flipped: bool = False
    before: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def count(self, status: str) -> int:
        """How many steps ended so."""
        return sum(result.status == status for result in self.results.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "platform": self.platform.name,
            "release": None if self.release is None else self.release.digest,
            "path": None if self.release is None else str(self.release.folder),
            "before": self.before,
            "new": self.new,
            "flipped": self.flipped,
            "seconds": round(self.seconds, 3),
            "steps": {
                **{status: self.count(status) for status in ("built", "cached", "failed", "skipped")},
                **({"fetched": fetched} if (fetched := self.count("fetched")) else {}),
            },
            "nodes": [
                {
                    "id": result.node.id,
                    "status": result.status,
                    "reasons": list(result.reasons),
                    "seconds": round(result.seconds, 3),
                    "artifact": result.artifact,
                }
                for result in self.results.values()
            ],
            "failures": [{"model": item.model, **item.error.to_json()} for item in self.failures],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """What a build did; ``shared`` is what went to and from the team's store, where there is one."""

    platforms: tuple[PlatformOutcome, ...] = field(default_factory=tuple)
    shared: SharedOutcome | None = None

    @property
    def failures(self) -> list[ModelFailure]:
        """All failures of all platforms."""
        return [failure for outcome in self.platforms for failure in outcome.failures]


def build(workspace: Workspace, options: BuildOptions, observer: Observer | None = None) -> BuildOutcome:
    """Build every asked platform. One build at a time writes a spec's results; others wait.

    Raises:
        ForgeError: nothing could be built at all; failures of single models are in the outcome.
        Interrupted: what was finished stays in the store, and the next build goes on from there.
    """
    observer = observer or Observer()
    platforms = workspace.platforms(options.platforms)
    _check_force(workspace, options)
    with disk_errors("cannot write the build folder", workspace.build_root):
        workspace.build_root.mkdir(parents=True, exist_ok=True)
    store = workspace.store.open()
    shared = shared_store(workspace, observer.warning)
    with (
        interruptible(),
        folder_lock(workspace.build_root / ".lock", wait=options.wait, notify=observer.waiting),
        store.in_use(),
        disk_errors("the build cannot go on", workspace.build_root),
    ):
        store.sweep_staging()
        store.add_root(workspace.build_root)
        lock = read_lock(workspace.lock_path)

        def one(platform: Platform) -> PlatformOutcome:
            with LocalExecutor(options.cores) as executor:
                return _platform(workspace, platform, lock, options, observer, shared, executor)

        if shared is None:
            return BuildOutcome(tuple(map(one, platforms)))
        try:
            shared.keep_leftovers()
            done = tuple(map(one, platforms))
            _send_rest(shared, observer)
            return BuildOutcome(done, shared.outcome())
        finally:
            shared.stop()


def _send_rest(shared: SharedStore, observer: Observer) -> None:
    """Wait for what is on its way to the team's store.

    Raises:
        Interrupted: the releases are out all the same.
    """
    try:
        shared.finish(observer.sending)
    except (KeyboardInterrupt, Interrupted):
        left = shared.outcome().left
        raise Interrupted(
            f"all is built and current; {left} steps were not sent to {shared.settings.name}",
            hint="the next build sends them",
        ) from None


def _check_force(workspace: Workspace, options: BuildOptions) -> None:
    names = workspace.loaded.spec.models
    for name in options.force:
        if name != "*" and name not in names:
            raise UsageError(f"the spec has no model '{name}'", hint=did_you_mean(name, names))


def _platform(
    workspace: Workspace,
    platform: Platform,
    lock: Lock,
    options: BuildOptions,
    observer: Observer,
    shared: SharedStore | None,
    executor: LocalExecutor,
) -> PlatformOutcome:
    clock = time.monotonic()
    folder = workspace.releases(platform)
    record_file = folder.root / "last-build.json"
    record = read_record(record_file)
    resolver = workspace.resolver(lock, update=options.update_sources, reading=executor.expect)
    graph = plan_graph(workspace.loaded, platform, resolver)
    observer.platform(platform, graph)
    before = folder.current()
    previous = None if before is None else before.digest
    known = None if options.force or graph.errors else record.recall(graph, workspace.store)
    if known is not None and _still(before, record, digest_of(compose_inputs(workspace, platform, lock, graph, known))):
        for result in known.values():
            observer.finished(result)
        _keep_record(record_file, record, changed=False)
        folder.prune(workspace.loaded.spec.retention.releases)  # an earlier build may have been stopped before it
        return PlatformOutcome(platform, known, (), before, before=previous, seconds=time.monotonic() - clock)
    logs, wanted = folder.root / "logs", graph.released()
    results = run_steps(
        workspace,
        logs,
        graph,
        record,
        options,
        observer,
        shared=shared,
        wanted=wanted,
        executor=executor,
        meanwhile=_import_composer,
    )
    failures = [ModelFailure(name, error) for name, error in graph.errors.items()]
    needed = _needed(graph)
    failures += [
        ModelFailure(result.node.model, result.error, result.log)
        for result in results.values()
        if result.error is not None and result.node.id in needed
    ]
    beside = tuple(
        f"{result.node.id} failed, and is not served: {result.error.message}"
        + ("" if result.error.found is None else f" ({result.error.found})")
        + ("" if result.log is None else f"; log: {result.log}")
        for result in results.values()
        if result.error is not None and result.node.id not in needed
    )
    nodes_before = dict(record.nodes)
    record.update(results, whole=not graph.errors)
    if failures:
        _keep_record(record_file, record, changed=record.nodes != nodes_before)
        return PlatformOutcome(
            platform, results, tuple(failures), None, before=previous, seconds=time.monotonic() - clock
        )
    inputs = compose_inputs(workspace, platform, lock, graph, results)
    if not options.force and _still(before, record, digest_of(inputs)):
        _keep_record(record_file, record, changed=record.nodes != nodes_before)
        folder.prune(workspace.loaded.spec.retention.releases)
        return PlatformOutcome(
            platform, results, (), before, before=previous, warnings=beside, seconds=time.monotonic() - clock
        )
    from tritonforge.actions.compose import Composer  # not needed where there is nothing to do

    trial = copy.deepcopy(lock)
    composer = Composer(workspace, platform, trial, graph, results)
    try:
        draft = composer.compose()
    except ForgeError as error:
        _keep_record(record_file, record, changed=record.nodes != nodes_before)
        failure = ModelFailure(composer.composing or "release", error)
        return PlatformOutcome(platform, results, (failure,), None, before=previous, seconds=time.monotonic() - clock)
    # Numbers first: a number that a crash leaves without a release stays that artefact's; it is never given again.
    lock.versions, lock.pins = trial.versions, trial.pins
    write_lock(workspace.lock_path, lock)
    published = folder.publish(draft, workspace.store, verify=bool(options.force))
    composer.keep_parity(workspace.evidence(platform))
    # Files as they were before composing: one that was saved meanwhile must show as a change next time.
    record.composed = digest_of({**inputs, "versions": numbers(lock, platform)})
    record.release = published.release.digest
    _keep_record(record_file, record, changed=True)
    folder.prune(workspace.loaded.spec.retention.releases)
    return PlatformOutcome(
        platform,
        results,
        (),
        published.release,
        published.new,
        published.flipped,
        previous,
        (*beside, *composer.warnings),
        time.monotonic() - clock,
    )


def _import_composer() -> None:
    """Import what composing a release takes, a tenth of a second, while the workers work."""
    with suppress(Exception):  # composing says so
        from tritonforge.actions import compose  # noqa: F401
        from tritonforge.repository import pbtxt

        pbtxt.new()


def _still(release: Release | None, record: BuildRecord, composed: str) -> bool:
    """Whether a release is what a build of the same inputs made last time, and is whole."""
    if release is None or release.digest != record.release or record.composed != composed:
        return False
    return release.is_whole()


def _needed(graph: Graph) -> set[str]:
    """The nodes that the release stands on. A variant that is not served may fail without holding up the others."""
    waiting = []
    for nodes in graph.models.values():
        waiting += [node for line in nodes.served for node in (line.artifact, line.parity) if node is not None]
        waiting += [node for node in (nodes.imported, nodes.golden, nodes.folder_files, nodes.base) if node is not None]
    needed: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += graph.nodes[node].inputs.values()
    return needed


def _keep_record(path: Path, record: BuildRecord, *, changed: bool) -> None:
    if changed or not path.exists():
        with disk_errors("cannot keep the build record", path):
            write_record(path, record)
    else:
        sweep(path)  # what a build that was killed just before left staged


def run_steps(
    workspace: Workspace,
    logs: Path,
    graph: Graph,
    record: BuildRecord,
    options: BuildOptions,
    observer: Observer | None = None,
    *,
    shared: SharedStore | None = None,
    wanted: frozenset[str] | None = None,
    executor: LocalExecutor | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, NodeResult]:
    """Run what of a graph is not in the store, or in the team's; every node's result by id.

    The files of ``wanted`` nodes are here then (of all, without it). ``executor`` may have workers already; they end
    here. ``meanwhile`` is called once, when the first steps run.

    Raises:
        Interrupted: what was finished stays in the store.
    """
    observer = observer or Observer()
    budget = Budget.of_this_machine(options.cores)
    everything = "*" in options.force
    models = workspace.loaded.spec.models
    executor = executor or LocalExecutor(budget.cores)
    schedule = Schedule(
        store=workspace.store,
        executor=executor,
        budget=budget,
        logs=logs,
        before=record.material(),
        force=frozenset(node.id for node in graph.nodes.values() if everything or node.model in options.force),
        timeouts={name: model.timeout_s for name, model in models.items()},
        memory={name: model.memory_mb << 20 for name, model in models.items() if model.memory_mb is not None},
        started=observer.started,
        finished=observer.finished,
        shared=shared,
        wanted=wanted,
        meanwhile=meanwhile,
    )
    try:
        with executor:
            return run_graph(graph, schedule)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            "the build was interrupted", hint="what was finished is in the store: run the command again to go on"
        ) from None


def first_error(failures: Sequence[ModelFailure]) -> ForgeError:
    """The error that decides the exit code: the environment's first, then the spec's, then what was checked."""
    return max(
        (failure.error for failure in failures), key=lambda error: (int(error.exit_code) == 3, int(error.exit_code))
    )
