"""One lock a target, on the target itself, which says who holds it since when."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tritonforge.errors import EnvironmentLacks, ForgeError
from tritonforge.rollout.place import AgentRefused, Place
from tritonforge.rollout.processes import started_at


def holder_here(purpose: str) -> dict[str, Any]:
    """Who this process is, in words that another machine understands."""
    user = "somebody"
    with suppress(OSError, KeyError):
        user = getpass.getuser()
    return {
        "id": secrets.token_hex(6),
        "who": f"{user}@{socket.gethostname()}",
        "machine": _machine(),
        "pid": os.getpid(),
        "started": started_at(os.getpid()),
        "for": purpose,
    }


def describe_holder(holder: Mapping[str, Any]) -> str:
    """A lock in words."""
    return f"{holder.get('who')} (process {holder.get('pid')}), since {holder.get('since')}, for {holder.get('for')}"


def is_gone(holder: Mapping[str, Any]) -> bool:
    """Whether the lock's holder was a process of this machine that has ended, with it or with its last boot."""
    there, _, boot = str(holder.get("machine")).rpartition("/")
    here, _, now = _machine().rpartition("/")
    if there != here:
        return False
    return boot != now or started_at(int(holder.get("pid") or 0)) != holder.get("started")


@contextmanager
def target_lock(place: Place, purpose: str) -> Iterator[str]:
    """Hold the target's lock; yields the token that every change there needs.

    A lock whose holder was a process of this machine and has ended is taken over. A lock that was lost meanwhile stays
    whoever's it is.

    Raises:
        EnvironmentLacks: somebody else holds it.
    """
    token, holder = secrets.token_hex(16), holder_here(purpose)
    instead = None
    while True:
        try:
            place.call("lock", {"token": token, "holder": holder, "instead": instead})
            break
        except AgentRefused as refused:
            held = refused.facts.get("holder") or {}
            if refused.code != "locked":
                raise
            if instead is not None or not is_gone(held):
                raise locked(held) from None
            instead = held.get("id")
    try:
        yield token
    finally:
        with suppress(ForgeError):
            place.call("unlock", {"token": token})


def locked(held: Mapping[str, Any]) -> EnvironmentLacks:
    """The error for a target that somebody else works on."""
    return EnvironmentLacks(
        "another command is at work on this target",
        found=describe_holder(held),
        hint="wait for it to end; when it is gone for good, `tritonforge unlock TARGET --break` ends its lock",
    )


def _machine() -> str:
    """``MACHINE/BOOT``: process ids mean nothing on another one, and nothing after a restart."""
    said = []
    for file in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            said.append(Path(file).read_text(encoding="ascii").strip())
        except OSError:
            said.append("")
    return f"{socket.gethostname()}-{said[0]}/{said[1]}"
