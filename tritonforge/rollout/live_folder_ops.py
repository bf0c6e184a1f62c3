"""A plan as operations of the agent (``apply``): each names what shall be, and does nothing where it is already.

The way back is such a list, too. It is right from wherever the way there was left, so it can be given to the target's
dead-man timer before the first change that clients see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonforge.rollout.live_folder import Layout, LiveFolder, in_order, said_by
from tritonforge.rollout.live_folder_plan import InPlace

Op = dict[str, Any]


def stage(folder: LiveFolder) -> Op:
    """Copy the versions to beside the live folder."""
    return {"do": "stage", "folder": folder.name, "versions": _versions(folder)}


def put(folder: LiveFolder, **more: Any) -> Op:
    """Have it on disk, its config last."""
    return {
        "do": "put",
        "folder": folder.name,
        "kind": folder.kind,
        "config": folder.config,
        "files": {path: dict(item) for path, item in folder.files.items()},
        "versions": _versions(folder),
        **more,
    }


def load(folder: LiveFolder, numbers: Sequence[str] | None = None) -> Op:
    """Have it served; the server must say what the config says."""
    numbers = folder.numbers if numbers is None else list(numbers)
    return {"do": "load", "folder": folder.name, "versions": numbers, "expect": said_by(folder.message)}


def unload(name: str) -> Op:
    """End it; requests in flight end first."""
    return {"do": "unload", "folder": name}


def drop(name: str, versions: Sequence[str] | None = None) -> Op:
    """Delete a folder, or versions of it."""
    return {"do": "drop", "folder": name, "versions": None if versions is None else list(versions)}


def quiet(names: Sequence[str], seconds: float) -> Op:
    """Wait until nobody asks these."""
    return {"do": "quiet", "folders": list(names), "seconds": seconds}


def serving(layout: Layout) -> list[Op]:
    """Have everything loaded that is on disk as the layout says."""
    ops = []
    for name in in_order(layout, layout):
        ops.append(load(layout[name]) | _while([layout[name]]))
    return ops


def staging(plan: InPlace) -> list[Op]:
    """All copies, before anything is loaded. What has a candidate that goes first takes the candidate's files."""
    ops = [stage(plan.new[name]) for name in plan.added]
    ops += [stage(folder) for folder in plan.candidates.values()]
    taken = plan.candidates.keys() - plan.held
    return ops + [stage(plan.new[name]) for name in (*plan.switched, *plan.settled) if name not in taken]


def candidates(plan: InPlace) -> dict[str, list[Op]]:
    """What is loaded before its proof: by the name in the new release."""
    folders = {name: plan.new[name] for name in plan.added} | dict(plan.candidates)
    return {name: [put(folder), load(folder)] for name, folder in folders.items()}


def going_away(plan: InPlace) -> dict[str, list[Op]]:
    """The routers, each to its candidate arms."""
    return {name: [put(router), load(router)] for name, router in plan.away.items()}


def setting_aside(plan: InPlace, drain: float) -> list[Op]:
    """End the ensembles that change, once nobody asks them."""
    asked = _asked_by_routers(plan.old, plan.away)
    waiting = [name for name in (*plan.aside, *plan.switched) if name in asked]
    ops = [quiet(waiting, drain)] if waiting else []
    return ops + [unload(name) for name in plan.aside]


def switching(plan: InPlace) -> dict[str, list[Op]]:
    """Each change that clients see, by folder, in order."""
    found = {}
    for name in plan.switched:
        ops: list[Op] = []
        take: dict[str, Any] = {}
        if name in plan.candidates and name not in plan.held:
            # The candidate goes first: two copies in memory are enough.
            ops.append(unload(plan.candidates[name].name))
            take = {"take": plan.candidates[name].name}
        found[name] = [*ops, put(plan.new[name], **take), load(plan.new[name])]
    for name in (*plan.back, *plan.settled):
        found[name] = [put(plan.new[name]), load(plan.new[name])]
    return found


def going_back(plan: InPlace, drain: float) -> list[Op]:
    """From wherever the way there was left to the old release, and nothing of the new one left."""
    old, new = plan.old, plan.new
    ops: list[Op] = []
    for name, router in plan.away.items():
        behind = [new[part] for part in _behind(plan, name)]
        if name in new and behind and new[name].state != router.state:
            # It is at the new release already: off it again, before what stands behind it goes back.
            ops.append(put(router) | _while([new[name]], behind))
            ops.append(load(router) | {"expect": None})
    ops += _aside_again(plan, drain)
    for name in reversed(plan.switched):
        ops += [put(old[name]), load(old[name])]
    for name in reversed(plan.aside):
        ops += [put(old[name]), load(old[name])]
    for name in plan.away:
        ops += [put(old[name]), load(old[name])]
    late = [name for name in (*reversed(plan.settled), *reversed(plan.back)) if name not in old]
    leaving = [*late, *(folder.name for folder in reversed(list(plan.candidates.values()))), *reversed(plan.added)]
    if plan.away:
        ops.append(quiet([plan.candidates[name].name for name in sorted(plan.held & plan.candidates.keys())], drain))
    for name in leaving:
        ops += [unload(name), drop(name)]
    for name in (*plan.switched, *plan.aside, *plan.away):
        if name in new:
            gone = sorted(set(new[name].numbers) - set(old[name].numbers))
            ops += [drop(name, gone)] if gone else []
    return ops


def clearing(present: Mapping[str, Mapping[str, Any]], new: Layout, drain: float) -> list[Op]:
    """After the commit: end and delete what the release does not name; ``present`` is what the agent says is there."""
    order = {"router": 0, "ensemble": 1, "model": 2}
    leaving = sorted(present.keys() - new.keys(), key=lambda name: (order[str(present[name]["kind"])], name))
    ops = [quiet(leaving, drain)] if leaving else []
    for name in leaving:
        ops += [unload(name), drop(name)]
    for name, folder in new.items():
        gone = sorted(present.get(name, {"versions": {}})["versions"].keys() - set(folder.numbers))
        ops += [drop(name, gone)] if gone else []
    return ops


def _aside_again(plan: InPlace, drain: float) -> list[Op]:
    """End the new ensembles, unless their router still (or again) leads to the old ones."""
    asked = _asked_by_routers(plan.old, plan.away)
    ops: list[Op] = []
    for name in plan.aside:
        fronts = [front for front in plan.away if name in plan.old[front].parts]
        for front in fronts[:1]:
            ways = [plan.away[front], *([plan.new[front]] if front in plan.new else [])]
            only = _while([way for way in ways if way.state != plan.old[front].state])
            if name in asked:
                ops.append(quiet([name], drain) | only)
            ops.append(unload(name) | only)
    return ops


def _behind(plan: InPlace, router: str) -> list[str]:
    """What behind a router shows, by its state, that the new release is there."""
    found: list[str] = []
    waiting = sorted(plan.old[router].parts | (plan.new[router].parts if router in plan.new else frozenset()))
    while waiting:
        name = waiting.pop()
        if name in found or name not in plan.new:
            continue
        found.append(name)
        waiting += plan.new[name].parts
    changed = {*plan.switched, *plan.back} & plan.old.keys()
    return [name for name in found if name in changed and plan.old[name].state != plan.new[name].state]


def _while(*either: Sequence[LiveFolder]) -> Op:
    """Only while of each list one folder is on disk as given."""
    return {"if": [[{"folder": folder.name, "state": folder.state} for folder in folders] for folders in either]}


def _asked_by_routers(layout: Layout, routers: Mapping[str, Any]) -> set[str]:
    return {part for name in routers for part in layout[name].parts}


def _versions(folder: LiveFolder) -> dict[str, dict[str, Any]]:
    return {
        str(number): {path: dict(item) for path, item in files.items()} for number, files in folder.versions.items()
    }
