"""``choose``: measure the variants of a model that pass parity, and write the choice to ``forge.lock``."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tritonforge.actions.build import BuildOptions, run_steps
from tritonforge.actions.compose import Composer
from tritonforge.actions.live import LiveServer, ServerChoice, embedded_runtime, open_server
from tritonforge.actions.load_data import load_data
from tritonforge.actions.loading import load_all
from tritonforge.actions.shared import shared_store
from tritonforge.actions.validate import validate_entry
from tritonforge.actions.workspace import Workspace
from tritonforge.build.graph import Graph, Line, ModelNodes
from tritonforge.build.planning import plan_graph
from tritonforge.build.record import BuildRecord
from tritonforge.build.scheduler import NodeResult
from tritonforge.durable import folder_lock
from tritonforge.errors import CheckFailed, Interrupted, SpecError, UsageError, did_you_mean
from tritonforge.interruption import interruptible
from tritonforge.measure import Outcome, PerfRun, describe
from tritonforge.measure import run as run_perf
from tritonforge.measure.paired import Ranking, rank
from tritonforge.repository.release import PlatformFolder, Release
from tritonforge.spec.lock import Choice, Lock, read_lock, write_lock
from tritonforge.spec.models import ModelSpec
from tritonforge.spec.platform import Platform

Objective = Literal["latency", "throughput"]


@dataclass(frozen=True, slots=True)
class ChooseOptions:
    """``rounds`` of every candidate in turns, each of ``interval_ms`` times three windows; less than that is noise."""

    objective: Objective = "latency"
    concurrency: int = 1
    batch_size: int = 1
    rounds: int = 6
    interval_ms: int = 300
    axes: Mapping[str, int] = field(default_factory=dict)
    dry_run: bool = False


@dataclass(slots=True)
class Candidate:
    """One variant: ``excluded`` says why it was not measured; latency in milliseconds, throughput in items/s."""

    label: str
    backend: str
    excluded: str | None = None
    max_abs: float | None = None
    cosine: float | None = None
    p50_ms: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """What goes to the lock and to ``--json``."""
        if self.excluded is not None:
            return {"backend": self.backend, "excluded": self.excluded}
        return {
            "backend": self.backend,
            "p50_ms": round(statistics.median(self.p50_ms), 4),
            "throughput": round(statistics.median(self.throughput), 2),
            **({} if self.max_abs is None else {"max_abs": self.max_abs}),
            **({} if self.cosine is None else {"cosine": round(self.cosine, 9)}),
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was measured of one model, and what was taken."""

    model: str
    platform: str
    candidates: tuple[Candidate, ...]
    ranking: Ranking
    before: str | None
    figures: Mapping[str, Any]
    written: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "platform": self.platform,
            "variant": self.ranking.best,
            "fastest": self.ranking.fastest,
            "level_with": list(self.ranking.level_with),
            "before": self.before,
            "written": self.written,
            "figures": dict(self.figures),
        }


def choose(
    workspace: Workspace,
    *,
    platform_name: str | None,
    names: tuple[str, ...],
    choice: ServerChoice,
    options: ChooseOptions,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Chosen]:
    """Build, prove, serve and measure the variants of the named models (all that have some, without names).

    Raises:
        UsageError: no such model, or one without variants; a server that cannot load what is measured.
        CheckFailed: no variant of a model is left.
    """
    if choice.kind == "connection":
        raise UsageError(
            "variants are measured on a server that loads them",
            found="--server",
            hint="leave it out, or name --tritonserver or --container",
        )
    platform = workspace.platform(platform_name)
    models = _asked(workspace, platform.name, names)
    lock = read_lock(workspace.lock_path)
    store = workspace.store.open()
    try:
        with interruptible(), folder_lock(workspace.build_root / ".lock"), store.in_use():
            graph = plan_graph(workspace.loaded, platform, workspace.resolver(lock))
            chosen = [_one(workspace, platform, name, graph, lock, choice, options, progress) for name in models]
            if not options.dry_run:
                fresh = read_lock(workspace.lock_path)
                for item in chosen:
                    fresh.choices.setdefault(platform.name, {})[item.model] = Choice(
                        item.ranking.best, dict(item.figures)
                    )
                write_lock(workspace.lock_path, fresh)
    except KeyboardInterrupt:
        raise Interrupted("the measurement was interrupted", hint="run it again: forge.lock is as it was") from None
    return chosen


def _asked(workspace: Workspace, platform: str, names: tuple[str, ...]) -> list[str]:
    models = workspace.loaded.spec.models
    for name in names:
        if name not in models:
            raise UsageError(f"the spec has no model '{name}'", hint=did_you_mean(name, models))
        if not models[name].variants:
            raise UsageError(f"'{name}' has no variants to choose from", hint="state them under `variants:`")
        if models[name].sequence is not None:
            raise UsageError(f"'{name}' answers sequences, which `choose` does not measure")
        pinned = models[name].platforms.get(platform)
        if pinned is not None and pinned.variant is not None:
            raise UsageError(
                f"the spec itself says which variant of '{name}' is served on {platform}",
                found=pinned.variant,
                hint=f"drop `platforms.{platform}.variant` to let forge.lock choose",
            )
    asked = list(dict.fromkeys(names)) or [
        name
        for name, model in models.items()
        if model.variants
        and model.sequence is None
        and (platform not in model.platforms or model.platforms[platform].variant is None)
    ]
    if not asked:
        raise UsageError("no model of the spec has variants", hint="state them under a model's `variants:`")
    return asked


def _one(
    workspace: Workspace,
    platform: Platform,
    name: str,
    graph: Graph,
    lock: Lock,
    choice: ServerChoice,
    options: ChooseOptions,
    progress: Callable[[str], None],
) -> Chosen:
    if name in graph.errors:
        raise graph.errors[name]
    if name not in graph.models:
        raise UsageError(f"'{name}' is not built for the platform {platform.name}")
    nodes = graph.models[name]
    own = Graph({key: node for key, node in graph.nodes.items() if node.model == name}, {name: nodes})
    progress(f"{name}: building {len(nodes.lines)} variants")
    shared = shared_store(workspace, progress)
    logs = workspace.releases(platform).root / "logs"
    try:
        results = run_steps(workspace, logs, own, BuildRecord(), BuildOptions(), shared=shared)
    finally:
        if shared is not None:
            shared.stop()  # what was made is sent by the next build
    candidates = [_candidate(workspace, line, nodes, results) for line in nodes.lines]
    for line, item in zip(nodes.lines, candidates, strict=True):
        if item.excluded is None:
            item.excluded = _uncomposable(workspace, platform, name, line, own, results, options)
    alive = [(line, item) for line, item in zip(nodes.lines, candidates, strict=True) if item.excluded is None]
    if not alive:
        raise CheckFailed(
            f"no variant of '{name}' passes parity", details=[f"{item.label}: {item.excluded}" for item in candidates]
        )
    with tempfile.TemporaryDirectory(prefix="tritonforge-choose-") as work:
        trial, release = _measuring_release(workspace, platform, name, [line for line, _ in alive], own, results, work)
        with open_server(trial, release, choice, explicit=True, progress=progress) as server:
            _serve(release, server, [item for _, item in alive], name, progress)
            measured = [item for item in candidates if item.excluded is None]
            if not measured:
                raise CheckFailed(
                    f"no variant of '{name}' is served right",
                    details=[f"{item.label}: {item.excluded}" for item in candidates],
                )
            _measure(release, server, name, measured, options, Path(work), progress)
            described = server.describe()
    less_is_better = {
        item.label: item.p50_ms if options.objective == "latency" else [1 / value for value in item.throughput]
        for item in measured
    }
    ranking = rank(less_is_better)
    figures = {
        "artifact": _digest_of(ranking.best, nodes, results),
        "objective": options.objective,
        "concurrency": options.concurrency,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "server": described["title"],
        "processor": describe().cpu,
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "fastest": ranking.fastest,
        "variants": {item.label: item.figures() for item in candidates},
        "slower_than_fastest": {
            label: {"ratio": round(r.value, 3), "low": round(r.low, 3), "high": round(r.high, 3)}
            for label, r in ranking.ratios.items()
        },
    }
    known = lock.choices.get(platform.name, {}).get(name)
    before = None if known is None else known.variant
    return Chosen(name, platform.name, tuple(candidates), ranking, before, figures, not options.dry_run)


def _candidate(workspace: Workspace, line: Line, nodes: ModelNodes, results: Mapping[str, NodeResult]) -> Candidate:
    made = Candidate(line.label, line.backend)
    for node in (nodes.imported, nodes.golden, line.artifact, line.parity):
        if node is not None and results[node].artifact is None:
            made.excluded = _reason(results, node)
            return made
    if line.parity is not None:
        digest = results[line.parity].artifact
        proof = None if digest is None else workspace.store.artifact(digest)
        if proof is not None:
            made.max_abs, made.cosine = proof.metadata.get("max_abs"), proof.metadata.get("cosine")
    return made


def _reason(results: Mapping[str, NodeResult], node: str) -> str:
    """What failed first on the way to a node."""
    result = results[node]
    if result.error is not None:
        found = "" if result.error.found is None else f": {result.error.found}"
        return f"{node} failed: {result.error.message}{found}"
    before = next((other for other in result.node.inputs.values() if results[other].artifact is None), None)
    return "it was not built" if before is None else _reason(results, before)


def _digest_of(label: str, nodes: ModelNodes, results: Mapping[str, NodeResult]) -> str:
    """The artefact of a variant, so that a later build can tell whether it is still what was measured."""
    line = next(line for line in nodes.lines if line.label == label)
    return str(results[line.artifact].artifact)[:12]


def _uncomposable(
    workspace: Workspace,
    platform: Platform,
    name: str,
    line: Line,
    graph: Graph,
    results: Mapping[str, NodeResult],
    options: ChooseOptions,
) -> str | None:
    """Why a variant cannot be served at all as it is stated, or not at the batch size that is asked for."""
    try:
        composer = _composer(workspace, platform, name, [line], graph, results)[1]
        composer.compose()
    except SpecError as error:
        return error.message + ("" if error.found is None else f" ({error.found})")
    largest = max(1, int(composer.configs()[_measured_name(name, line.label)].message.max_batch_size))
    return None if options.batch_size <= largest else f"its largest batch is {largest}"


def _measured_name(name: str, label: str) -> str:
    return f"{name}--{label}"


def _measuring_release(
    workspace: Workspace,
    platform: Platform,
    name: str,
    lines: list[Line],
    graph: Graph,
    results: Mapping[str, NodeResult],
    work: str,
) -> tuple[Workspace, Release]:
    """A release of its own, in a temporary folder, with every variant as a model beside the others."""
    trial, composer = _composer(workspace, platform, name, lines, graph, results)
    published = PlatformFolder(Path(work) / platform.name).publish(composer.compose(), workspace.store)
    return trial, published.release


def _composer(
    workspace: Workspace,
    platform: Platform,
    name: str,
    lines: list[Line],
    graph: Graph,
    results: Mapping[str, NodeResult],
) -> tuple[Workspace, Composer]:
    """What composes the variants as models of their own, and the workspace with the spec that has them."""
    model = workspace.loaded.spec.models[name]
    nodes = graph.models[name]
    plain: ModelSpec = model.model_copy(
        update={"variants": {}, "folder": None, "router": False, "version": None, "platforms": {}, "only": None}
    )
    overrides = {key: value.model_copy(update={"variant": None}) for key, value in model.platforms.items()}
    plain = plain.model_copy(update={"platforms": overrides})
    spec = workspace.loaded.spec.model_copy(
        update={
            "models": {_measured_name(name, line.label): plain for line in lines},
            "ensembles": {},
            "gates": {},
        }
    )
    trial = replace(workspace, loaded=replace(workspace.loaded, spec=spec))
    split = Graph(
        graph.nodes,
        {
            _measured_name(name, line.label): replace(nodes, lines=(line,), served=(line,), chosen_by=None)
            for line in lines
        },
    )
    return trial, Composer(trial, platform, Lock(), split, copy.copy(results))


def _serve(
    release: Release, server: LiveServer, candidates: list[Candidate], name: str, progress: Callable[[str], None]
) -> None:
    """Load every candidate, and hold its live answers to the golden cases; what fails is excluded."""
    loaded = load_all(release, server, progress)
    for candidate in candidates:
        folder = _measured_name(name, candidate.label)
        found = validate_entry(release, release.served(folder), server, loaded[folder])
        if not found.ok:
            failed = next((case for case in found.cases if not case.ok), None)
            reasons = [*found.problems, "" if failed is None else f"{failed.case}: {failed.reason}"]
            candidate.excluded = f"it is not served right: {' '.join(reasons[0].split())}"


def _measure(
    release: Release,
    server: LiveServer,
    name: str,
    candidates: list[Candidate],
    options: ChooseOptions,
    work: Path,
    progress: Callable[[str], None],
) -> None:
    """Rounds in turns, every second one backwards, so that drift falls on all of them alike."""
    runtime = embedded_runtime(progress)
    address = server.connection.grpc
    if address is None:
        raise UsageError("variants are measured over gRPC, and the server's address for it is not known")
    runs: dict[str, PerfRun] = {}
    for item in candidates:
        folder = _measured_name(name, item.label)
        own = work / item.label
        own.mkdir()
        data, shapes = load_data(
            release, folder, own, batch_size=options.batch_size, axes=options.axes, asking="the measurement"
        )
        runs[item.label] = PerfRun(
            program=runtime.perf_analyzer,
            model=folder,
            url=address,
            work_dir=own,
            env=runtime.perf_env(),
            concurrency=(options.concurrency,),
            batch_size=options.batch_size,
            shapes=shapes,
            input_data=data,
            measurement_interval_ms=options.interval_ms,
            windows=3,
            warmup_request_count=20,
        )
    for number in range(options.rounds):
        for item in candidates if number % 2 == 0 else candidates[::-1]:
            progress(f"{name}: round {number + 1} of {options.rounds}, {item.label}")
            level = run_perf(runs[item.label], None).level(options.concurrency)
            if level.outcome is not Outcome.MEASURED or level.p50_us is None or level.throughput is None:
                raise CheckFailed(
                    f"the variant '{item.label}' could not be measured",
                    found=level.reason or level.outcome.value,
                    details=level.log_tail[-3:],
                )
            item.p50_ms.append(level.p50_us.value / 1000)
            item.throughput.append(level.throughput.value)
