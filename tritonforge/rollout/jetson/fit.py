"""Whether servers fit into a board: memory, which processor and GPU share, and disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonforge.errors import CheckFailed
from tritonforge.rollout.jetson.board import Board

GIB: Final = 1 << 30
MIB: Final = 1 << 20

SERVER_BYTES: Final = 1 * GIB
"""A Triton without models: its process, the libraries of its backends, a CUDA context. An estimate."""
POOL_BYTES: Final = (256 + 64) * MIB
"""Triton's pinned (256 MiB) and CUDA (64 MiB a GPU) pools by default: ``--pinned-memory-pool-byte-size``,
``--cuda-memory-pool-byte-size``."""
MODEL_FACTOR: Final = 1.5
"""What a loaded model takes over its files' size, for workspaces and activations. An estimate."""
RESERVE_BYTES: Final = 512 * MIB
"""Left to the rest of the system; without it the kernel ends processes before anything says no."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it fits, in bytes; ``instead`` says what can be done when it does not. ``estimated`` says that no
    measured size of a server went in."""

    ok: bool
    slots: int
    memory_needed: int
    memory_available: int | None
    disk_needed: int
    disk_free: int | None
    reasons: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    estimated: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require(self) -> None:
        """Refuse what does not fit.

        Raises:
            CheckFailed: it does not; with the ways that do.
        """
        if self.ok:
            return
        raise CheckFailed(
            f"the board has no room for {_servers(self.slots)}",
            details=self.reasons,
            hint="; or ".join(self.instead) or None,
        )


def fits(
    board: Board,
    *,
    slots: int,
    model_bytes: int,
    changed_bytes: int | None = None,
    send_bytes: int | None = None,
    serving: bool = False,
    server_bytes: int | None = None,
    image_bytes: int = 0,
) -> Verdict:
    """Whether a release goes there with two slots, or with one.

    Two slots: two servers with all models. One slot: one server in which, for a while, the changed models are loaded
    twice. ``model_bytes`` is the size of the release's files, ``changed_bytes`` of the models that change, and
    ``send_bytes`` of the files that the board does not have (all, when absent). ``serving`` says that one server runs
    there already and is in what the board calls used. ``server_bytes`` is what a running server with these models was
    seen to take, instead of the estimate. ``image_bytes`` is the image's, when it must still be fetched.
    """
    changed = model_bytes if changed_bytes is None else changed_bytes
    server = server_bytes or SERVER_BYTES + POOL_BYTES + int(model_bytes * MODEL_FACTOR)
    twice = int(changed * MODEL_FACTOR)
    if slots == 2:
        memory = server * (1 if serving else 2)
    else:
        memory = twice if serving else server + twice
    memory += RESERVE_BYTES
    # One slot serves from files of its own beside the release's: nothing that Triton may reload shares an inode.
    disk = (model_bytes if send_bytes is None else send_bytes) + (model_bytes if slots == 1 else 0) + image_bytes
    disk += max(RESERVE_BYTES, disk // 10)
    reasons: list[str] = []
    short = _short("memory", memory, board.memory_available, f"{_servers(slots)} and a reserve")
    full = _short("disk", disk, board.disk_free, "the release, and a reserve")
    reasons += [reason for reason in (short, full) if reason]
    instead: list[str] = []
    if short and slots == 2:
        single = fits(
            board,
            slots=1,
            model_bytes=model_bytes,
            changed_bytes=changed_bytes,
            send_bytes=send_bytes,
            serving=serving,
            server_bytes=server_bytes,
            image_bytes=image_bytes,
        )
        if single.ok:
            instead.append(
                f"one server that is changed in place fits ({_size(single.memory_needed)}): `strategy: one-slot`"
            )
    if short:
        instead.append("free memory there (a desktop takes 1 GB: sudo systemctl set-default multi-user.target)")
        instead.append("make the models smaller (quantise them), or use a board with more memory")
    if full:
        instead.append(
            "free space there (docker system df shows what takes it), or move Docker's root to a larger disk"
        )
    return Verdict(
        not reasons,
        slots,
        memory,
        board.memory_available,
        disk,
        board.disk_free,
        tuple(reasons),
        tuple(instead),
        server_bytes is None,
    )


def _short(what: str, needed: int, there: int | None, why: str) -> str | None:
    if there is None or needed <= there:
        return None
    return f"{what}: {_size(needed)} needed for {why}, {_size(there)} available"


def _servers(slots: int) -> str:
    return "two servers" if slots == 2 else "one server with its changed models loaded twice"


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
