"""``status``, ``history``, ``unlock`` and ``logs``: what a target says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonforge.actions.targets import OpenTarget, Progress, Snapshot, open_target
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import EnvironmentLacks, ForgeError, UsageError
from tritonforge.rollout.host import SLOTS, ServerStatus
from tritonforge.rollout.journal import Event
from tritonforge.rollout.lock import describe_holder, is_gone
from tritonforge.triton.client import Client


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot: what is committed there, what runs, and how many percent of the requests it gets."""

    slot: str
    active: bool
    release: str | None
    status: ServerStatus
    share: int | None


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target at one moment. ``ready`` is the number of folders that the serving server has ready, of ``models``."""

    target: str
    kind: str
    release: str | None
    since: str | None
    strategy: str
    slots: Sequence[SlotView]
    proxy: str
    models: int
    ready: int | None
    unfinished: str | None
    lock: str | None
    pending: bool
    watching: bool
    free: int

    @property
    def ok(self) -> bool:
        """Whether a committed release serves whole, and nothing is unfinished."""
        return self.release is not None and self.ready == self.models and self.unfinished is None

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "kind": self.kind,
            "release": self.release,
            "since": self.since,
            "strategy": self.strategy,
            "ok": self.ok,
            "slots": [
                {
                    "slot": item.slot,
                    "active": item.active,
                    "release": item.release,
                    "running": item.status.running,
                    "image": item.status.image,
                    "restarts": item.status.restarts,
                    "words": item.status.words,
                    "share": item.share,
                }
                for item in self.slots
            ],
            "proxy": self.proxy,
            "models": self.models,
            "ready": self.ready,
            "unfinished": self.unfinished,
            "lock": self.lock,
            "dead_man_timer": {"running": self.watching, "pending": self.pending},
            "free_bytes": self.free,
        }


def status(workspace: Workspace, name: str, progress: Progress = lambda text: None) -> TargetView:
    """What runs on a target. Nothing there is changed.

    Raises:
        EnvironmentLacks: it cannot be reached, or nothing was ever deployed there.
    """
    with open_target(workspace, name, progress) as target:
        snapshot = read_or_explain(target)
        state = snapshot.state
        committed = state.committed or {}
        active = committed.get("active")
        slots = committed.get("slots", {})
        shares = shares_of(target)
        views = [
            SlotView(
                slot, slot == active, slots.get(slot, {}).get("release"), target.host.status(slot), shares.get(slot)
            )
            for slot in (SLOTS if target.strategy == "two-slots" else SLOTS[:1])
        ]
        folders = {item["folder"] for item in slots.get(active, {}).get("document", {}).get("models", [])}
        proxy = target.host.proxy_status().words if target.proxy is not None else "none"
        return TargetView(
            name,
            target.kind,
            state.release,
            slots.get(active, {}).get("since"),
            str(committed.get("strategy", target.strategy)),
            views,
            proxy,
            len(folders),
            None if active is None else _ready(target, active, folders),
            _unfinished_words(snapshot),
            _lock_words(snapshot.lock),
            snapshot.pending is not None,
            snapshot.watching,
            int(snapshot.hello["free"]),
        )


def history(workspace: Workspace, name: str, progress: Progress = lambda text: None) -> Sequence[Event]:
    """Every rollout of a target with how it ended, oldest first."""
    with open_target(workspace, name, progress) as target:
        return read_or_explain(target).state.history


def unlock(
    workspace: Workspace, name: str, *, break_it: bool, progress: Progress = lambda text: None
) -> Mapping[str, Any] | None:
    """The lock of a target, ended where ``break_it``; None where there is none.

    A rollout whose lock is broken cannot change the target any more, even when its process still runs.
    """
    with open_target(workspace, name, progress) as target:
        held = read_or_explain(target).lock
        if held is not None and break_it:
            target.host.place.call("unlock", {"instead": held["id"]})
        return None if held is None else {**held, "gone": is_gone(held)}


def logs(
    workspace: Workspace,
    name: str,
    *,
    unit: str | None,
    tail: int,
    follow: bool,
    progress: Progress = lambda text: None,
) -> Iterator[str]:
    """Lines of the log of a slot or of the proxy; of the server that serves without a name."""
    with open_target(workspace, name, progress) as target:
        units = [*SLOTS, "proxy", *(["keeper"] if target.kind != "embedded" else ["watch"])]
        if unit is None:
            committed = read_or_explain(target).state.committed
            unit = SLOTS[0] if committed is None else str(committed["active"])
        if unit not in units:
            raise UsageError(f"there is no log of '{unit}'", expected=" or ".join(units))
        yield from target.host.logs(unit, tail, follow)


def read_or_explain(target: OpenTarget) -> Snapshot:
    """The target's account of itself.

    Raises:
        EnvironmentLacks: there is none yet.
    """
    try:
        return target.read()
    except ForgeError as error:
        if isinstance(error, EnvironmentLacks) and error.hint is None:
            error.hint = f"is it there? `tritonforge deploy {target.name}` makes it"
        raise


def shares_of(target: OpenTarget) -> dict[str, int]:
    """Percent of the requests by slot, as the proxy splits them now; empty where that is not known."""
    if target.proxy is None:
        return {}
    try:
        rows = target.host.place.call("proxy", {"control": target.host.control()}).get("triton_http", {})
    except ForgeError:
        return {}
    total = sum(int(row["weight"]) for row in rows.values())
    return {slot: round(100 * int(row["weight"]) / total) for slot, row in rows.items()} if total else {}


def _ready(target: OpenTarget, slot: str, folders: set[str]) -> int | None:
    try:
        with target.host.reach(slot) as connection, Client(connection) as client:
            return len({entry.name for entry in client.index() if entry.state == "READY" and entry.name in folders})
    except ForgeError:
        return None


def _unfinished_words(snapshot: Snapshot) -> str | None:
    unfinished = snapshot.state.unfinished
    if unfinished is None:
        return None
    short = str(unfinished.begin["release"])[:12]
    if unfinished.reverted:
        return f"release {short} was reverted by the dead-man timer; the next command clears up"
    if unfinished.committed:
        return f"release {short} is committed and not tidied up yet"
    at = unfinished.intended or (list(unfinished.done)[-1] if unfinished.done else "its beginning")
    return f"release {short} is on its way, at '{at}'"


def _lock_words(lock: Mapping[str, Any] | None) -> str | None:
    if lock is None:
        return None
    return describe_holder(lock) + (" – that process has ended" if is_gone(lock) else "")
