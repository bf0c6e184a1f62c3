"""``plan``: what a build would run and why, without running or changing anything."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tritonforge.actions.compose import Composer
from tritonforge.actions.shared import shared_store
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.remote.shared import SharedStore
from tritonforge.artifact.store import LocalStore
from tritonforge.build.graph import Graph, Node
from tritonforge.build.key import key_of, why
from tritonforge.build.planning import plan_graph
from tritonforge.build.record import read_record
from tritonforge.build.scheduler import NodeResult, inputs_of
from tritonforge.errors import ForgeError
from tritonforge.repository.release import Release, ReleaseDraft
from tritonforge.spec.lock import Lock, read_lock
from tritonforge.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """``run``: its key is in no store; ``wait``: what it reads will be made anew, so its key is not known yet.

    ``fetch``: the team's store has it.
    """

    node: Node
    action: Literal["keep", "fetch", "run", "wait"]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    """What a build of one platform would do; ``release`` says in words what would change in the repository."""

    platform: Platform
    steps: tuple[PlannedStep, ...]
    release: tuple[str, ...] = ()
    errors: tuple[ForgeError, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "platform": self.platform.name,
            "steps": [
                {"id": s.node.id, "model": s.node.model, "action": s.action, "reasons": list(s.reasons)}
                for s in self.steps
            ],
            "release": list(self.release),
            "errors": [error.to_json() for error in self.errors],
        }


def make_plan(
    workspace: Workspace, platforms: Sequence[str] = (), warn: Callable[[str], None] = lambda text: None
) -> list[PlatformPlan]:
    """The plan of each asked platform. The team's store is asked, and nothing is taken from it.

    Raises:
        SpecError: the lock is damaged. What is wrong with single models is in the plan.
    """
    lock = read_lock(workspace.lock_path)
    shared = shared_store(workspace, warn)
    return [_plan(workspace, platform, copy.deepcopy(lock), shared) for platform in workspace.platforms(platforms)]


def _plan(workspace: Workspace, platform: Platform, lock: Lock, shared: SharedStore | None) -> PlatformPlan:
    folder = workspace.releases(platform)
    before = read_record(folder.root / "last-build.json").material()
    graph = plan_graph(workspace.loaded, platform, workspace.resolver(lock))
    steps, results, errors = planned_steps(graph, workspace.store, before, shared)
    release: tuple[str, ...] = ()
    if not errors and all(step.action == "keep" for step in steps):
        try:
            draft = Composer(workspace, platform, lock, graph, results).compose()
            release = tuple(release_changes(folder.current(), draft))
        except ForgeError as error:
            errors.append(error)
    elif not errors:
        touched = {step.node.model for step in steps if step.action != "keep"}
        release = (
            "a new release would follow, if any artefact comes out different",
            *_ensembles_over(workspace, touched),
        )
    return PlatformPlan(platform, tuple(steps), release, tuple(errors))


def planned_steps(
    graph: Graph,
    store: LocalStore,
    before: Mapping[str, Mapping[str, Any]],
    shared: SharedStore | None = None,
) -> tuple[list[PlannedStep], dict[str, NodeResult], list[ForgeError]]:
    """What a run of ``graph`` would do, the results that are in the store already, and what stands in its way.

    ``before`` is what keys were made of last time, by node id; ``shared`` the team's store, which is only asked.
    """
    results: dict[str, NodeResult] = {}
    steps: list[PlannedStep] = []
    errors = list(graph.errors.values())
    released = graph.released()
    for node in graph.nodes.values():
        waits = [other for other in node.inputs.values() if results[other].artifact is None]
        if waits:
            results[node.id] = NodeResult(node, "skipped")
            steps.append(PlannedStep(node, "wait", (f"{waits[0]} runs",)))
            continue
        try:
            keyed = key_of(node, inputs_of(node, results))
        except ForgeError as error:
            results[node.id] = NodeResult(node, "failed", error=error)
            errors.append(error)
            continue
        record = store.lookup(keyed.key) if node.id in released else store.known(keyed.key)
        there = None if record or shared is None else shared.look(keyed.key, keyed.material["facets"], node.id)
        if record is not None:
            results[node.id] = NodeResult(node, "cached", keyed.key, record.artifact, keyed.material)
            steps.append(PlannedStep(node, "keep"))
        elif there is not None and shared is not None:
            results[node.id] = NodeResult(node, "fetched", keyed.key, there.record.artifact, keyed.material)
            steps.append(PlannedStep(node, "fetch", (f"{shared.settings.name} has it",)))
        else:
            results[node.id] = NodeResult(node, "skipped", keyed.key)
            steps.append(PlannedStep(node, "run", tuple(why(keyed.material, before.get(node.id)))))
    return steps, results, errors


def _ensembles_over(workspace: Workspace, models: set[str]) -> list[str]:
    """Which ensembles stand on models that will be built; what of them changes is known after that."""
    touched = set(models)
    lines = []
    growing = True
    while growing:
        growing = False
        for name, ensemble in workspace.loaded.spec.ensembles.items():
            hit = sorted({step.model for step in ensemble.steps} & touched)
            if hit and name not in touched:
                touched.add(name)
                growing = True
                lines.append(f"ensemble {name} would be wired anew if the artefact of {', '.join(hit)} changes")
    return lines


def release_changes(current: Release | None, draft: ReleaseDraft) -> list[str]:
    """What a release would change against the current one, in words."""
    if current is None:
        return ["a first release would be published"]
    if current.digest == draft.digest:
        return [f"the release stays {current.digest[:12]}"]
    old = {entry["folder"]: entry for entry in current.models()}
    new = {entry["folder"]: entry for entry in draft.document["models"]}
    lines = [f"a new release would be published: {draft.digest[:12]} instead of {current.digest[:12]}"]
    for folder in sorted({*old, *new}):
        was, will = old.get(folder), new.get(folder)
        if was is None:
            lines.append(f"{folder} is new")
        elif will is None:
            lines.append(f"{folder} is gone")
        else:
            if was["artifact"] != will["artifact"]:
                lines.append(f"{folder} gets version {will['version']} instead of {was['version']}")
            if was["config"] != will["config"]:
                lines.append(f"{folder}: config.pbtxt changes")
    if current.document["server"] != draft.document["server"]:
        lines.append("server settings change")
    if current.document["golden"] != draft.document["golden"]:
        lines.append("golden cases change")
    return lines
