"""What changes when one server goes from a release to the next in place; or why it cannot without loss.

Rules of Triton that stand behind this (core ``model_lifecycle.cc``, ``model_repository_manager.cc``): a load swaps the
versions of one model atomically, and requests in flight end with the version that they began in; one config is for all
versions of a model; what an ensemble is made of is looked up when its model is loaded, so an ensemble and its members
are several loads with a time between them. Behind a router that time does not show: the router is switched to a second
ensemble, made of candidates, in one load, and back to the first one when that is whole again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonforge.errors import UsageError
from tritonforge.rollout.live_folder import Layout, LiveFolder, arms_of, in_order, redirected, renamed

WAYS = (
    "`strategy: two-slots` changes anything; an ensemble can stand behind a router (`router: true`) from a release on; "
    "another signature or backend can have a name of its own"
)


@dataclass(frozen=True, slots=True)
class InPlace:
    """The changes, each group in the order in which it is done.

    ``added`` have names that no client knows yet. ``away``: routers with their arms on candidates. ``aside``: ensembles
    that nobody asks meanwhile. ``switched``: models. ``back``: the ensembles again, and those that are new and need
    what was switched. ``settled``: routers as the release says. ``candidates`` by the folder that they stand for;
    ``held`` are those that serve until the end.
    """

    old: Layout
    new: Layout
    added: tuple[str, ...]
    removed: tuple[str, ...]
    switched: tuple[str, ...]
    aside: tuple[str, ...]
    back: tuple[str, ...]
    away: Mapping[str, LiveFolder]
    settled: tuple[str, ...]
    candidates: Mapping[str, LiveFolder]
    held: frozenset[str]
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.added or self.removed or self.switched or self.back or self.settled)

    @property
    def visible(self) -> frozenset[str]:
        """The names whose answers change."""
        return frozenset((*self.switched, *self.back, *self.settled))

    def lines(self) -> list[str]:
        """What is done, in words, one line a folder."""
        said = [f"add {name}" for name in self.added]
        said += [f"candidate {folder.name} for {name}" for name, folder in self.candidates.items()]
        said += [f"{name}: to {', '.join(sorted(router.parts))}" for name, router in self.away.items()]
        said += [f"switch {name} to version {', '.join(self.new[name].numbers)}" for name in self.switched]
        said += [f"switch {name} to its members of the release" for name in self.back]
        said += [f"{name}: to {', '.join(sorted(self.new[name].parts)) or 'its new config'}" for name in self.settled]
        said += [f"remove {name}" for name in self.removed]
        return [*said, *self.notes]


def plan_in_place(old: Layout, new: Layout, *, proving: bool) -> InPlace:
    """The way from one release to the next; with ``proving`` every change has a candidate that can be asked first.

    Raises:
        UsageError: something cannot be changed in place without loss; each is named, with the ways that can.
    """
    differs = {name for name in old.keys() & new.keys() if not old[name].equals(new[name])}
    aside = _aside(old, differs)
    routers = {
        name
        for name, folder in old.items()
        if folder.kind == "router" and (name in differs or folder.parts & (aside | differs))
    }
    switched = {name for name in differs if name not in routers and name not in aside}
    notes: list[str] = []
    refusals = _refusals(old, new, differs, aside, routers, notes)
    if refusals:
        raise UsageError("this release cannot take over in place without loss", details=sorted(refusals), hint=WAYS)
    fresh = new.keys() - old.keys()
    late: set[str] = set()
    for name in in_order(new, fresh):
        if new[name].parts & (differs | aside | late):
            late.add(name)
    added = fresh - late
    held = _held(old, new, differs | late, aside, routers)
    wanted = held | ({*differs, *aside, *late} & new.keys() if proving else set())
    names = _names(wanted, old, new)
    candidates = {name: renamed(new[name], names[name], names) for name in in_order(new, wanted)}
    away = {}
    for name in in_order(old, routers):
        arms = arms_of((new[name] if name in new else old[name]).message)
        away[name] = redirected(old[name], [{**arm, "model": names.get(arm["model"], arm["model"])} for arm in arms])
    return InPlace(
        old,
        new,
        tuple(in_order(new, added)),
        tuple(reversed(in_order(old, old.keys() - new.keys()))),
        tuple(in_order(new, switched)),
        tuple(reversed(in_order(old, aside))),
        tuple(in_order(new, (aside & new.keys()) | {name for name in late if new[name].kind != "router"})),
        away,
        tuple(in_order(new, (routers & new.keys()) | {name for name in late if new[name].kind == "router"})),
        candidates,
        frozenset(held),
        tuple(notes),
    )


def _aside(old: Layout, differs: set[str]) -> set[str]:
    """The ensembles that must not be asked while they or something in them changes."""
    found: set[str] = {name for name in differs if old[name].kind == "ensemble"}
    while True:
        more = {
            name
            for name, folder in old.items()
            if folder.kind == "ensemble" and name not in found and folder.parts & (differs | found)
        }
        if not more:
            return found
        found |= more


def _held(old: Layout, new: Layout, changing: set[str], aside: set[str], routers: set[str]) -> set[str]:
    """What a router is led to in the meantime, with all that it is made of."""
    found: set[str] = set()
    waiting = [part for name in routers for part in (new[name] if name in new else old[name]).parts]
    while waiting:
        name = waiting.pop()
        if name in found or name not in new or name not in (changing | aside):
            continue
        found.add(name)
        waiting += new[name].parts
    return found


def _names(wanted: set[str], old: Layout, new: Layout) -> dict[str, str]:
    """A name for each candidate that no model has."""
    taken = {*old, *new}
    found = {}
    for name in sorted(wanted):
        chosen = f"{name}--candidate"
        while chosen in taken:
            chosen += "-"
        taken.add(chosen)
        found[name] = chosen
    return found


def _refusals(
    old: Layout, new: Layout, differs: set[str], aside: set[str], routers: set[str], notes: list[str]
) -> list[str]:
    found: list[str] = []
    fronted = {part for name in routers for part in old[name].parts}
    for name in sorted(aside):
        changed = ", ".join(sorted(old[name].parts & (differs | aside)))
        if name not in fronted:
            why = f"because of {changed}" if changed else "in its own wiring"
            found.append(f"{name}: an ensemble that clients reach without a router changes {why}")
    for name in sorted(differs | aside):
        if old[name].message.HasField("sequence_batching"):
            found.append(
                f"{name}: a sequence model; Triton sends the rest of a running sequence to the new version, which "
                "refuses it"
            )
    for name in sorted(differs):
        before, after = old[name], new[name]
        if before.kind != after.kind:
            found.append(f"{name}: is a {before.kind}, and would become a {after.kind}")
            continue
        numbers = before.versions.keys() & after.versions.keys()
        rewritten = [number for number in numbers if dict(before.versions[number]) != dict(after.versions[number])]
        if rewritten:
            found.append(f"{name}: version {rewritten[0]} stands for other files; a version number is never used again")
        if name in aside:
            continue
        what = _incompatible(before.message, after.message)
        if what and not _is_inside(name, old, aside, fronted):
            found.append(f"{name}: {what}")
        elif what:
            notes.append(f"{name}: {what}; whoever asks it by its own name gets that from the switch on")
    return found


def _is_inside(name: str, old: Layout, aside: set[str], fronted: set[str]) -> bool:
    """Whether it is asked by a router or by ensembles that are set aside, and so not by its own name alone."""
    return old[name].kind == "model" and (name in fronted or any(name in old[other].parts for other in aside))


def _incompatible(old: Any, new: Any) -> str | None:
    """Why two configs cannot be those of one model for its clients."""
    for field, what in (
        ("backend", "another backend"),
        ("platform", "another platform"),
        ("runtime", "another runtime"),
    ):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            return f"{what} ({before or 'none'} → {after or 'none'})"
    if old.max_batch_size != new.max_batch_size:
        return f"another max_batch_size ({old.max_batch_size} → {new.max_batch_size})"
    for field in ("input", "output"):
        before = sorted(item.SerializeToString(deterministic=True) for item in getattr(old, field))
        after = sorted(item.SerializeToString(deterministic=True) for item in getattr(new, field))
        if before != after:
            return f"another signature (its {field}s)"
    if old.model_transaction_policy.decoupled != new.model_transaction_policy.decoupled:
        return "decoupled or not is part of its signature"
    return None
