"""``serve``: a release on a server until it is interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tritonforge.actions.live import ServerChoice, has_gpu, open_server
from tritonforge.actions.loading import load_or_fail
from tritonforge.actions.workspace import Workspace
from tritonforge.durable import write_json
from tritonforge.errors import CheckFailed
from tritonforge.interruption import interruptible
from tritonforge.repository.release import PlatformFolder, Release
from tritonforge.triton.connection import Connection
from tritonforge.triton.gpu import cpu_override

_LOCK: Final = "serving.lock"


def serve(
    workspace: Workspace,
    *,
    platform_name: str | None,
    reference: str | None,
    choice: ServerChoice,
    ports: Mapping[str, int | None],
    host: str,
    log: Path | None,
    say: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. A release for GPUs is served on the CPU where there is none, and that is said.

    Raises:
        EnvironmentLacks: a port is in use, or the server cannot be had.
        CheckFailed: a model does not load, or the server ended by itself.
    """
    platform = workspace.platform(platform_name)
    folder = workspace.releases(platform)
    release = folder.find(reference)
    moved = _needs_cpu(release, choice)
    if moved:
        say(f"there is no GPU for {', '.join(moved)}: their instances run on the CPU here")
    log = log or folder.root / "logs" / "serve.log"
    with (
        interruptible(),
        folder.hold(release),
        open_server(
            workspace, release, choice, explicit=bool(moved), progress=say, ports=ports, host=host, log=log
        ) as server,
    ):
        if moved:
            load_or_fail(release, server, say)
        with suppress(KeyboardInterrupt):  # from here on an interruption is how serving ends
            connection = server.connection
            say(f"serving {workspace.loaded.spec.name} {release.digest[:12]} on {server.describe()['title']}")
            say(f"  HTTP {connection.http}  gRPC {connection.grpc}  metrics {connection.metrics}  log {log}")
            say("  Ctrl-C ends it")
            with _announced(folder, connection, release) as announce:
                while server.running is None or server.running.running:
                    announce()
                    time.sleep(0.2)
            raise CheckFailed("the server ended by itself", found=f"its log is {log}")
    say("stopped")


@contextmanager
def _announced(folder: PlatformFolder, connection: Connection, release: Release) -> Iterator[Callable[[], None]]:
    """Tell ``infer`` where this process serves, for as long as it holds ``serving.lock``.

    The lock may be held by another `serve` of this platform, or for a moment by an ``infer`` that asks: what is
    yielded tries again.
    """
    state = folder.root / "serving.json"
    lock: int | None = None
    held = False
    with suppress(OSError):  # a read-only folder is served all the same; only `infer` has to be told where
        lock = os.open(folder.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def announce() -> None:
        nonlocal held
        if lock is None or held:
            return
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True

    try:
        announce()
        with suppress(OSError):
            write_json(
                state, {"pid": os.getpid(), "http": connection.http, "grpc": connection.grpc, "release": release.digest}
            )
        yield announce
    finally:
        with suppress(OSError, ValueError, KeyError):  # another `serve` of this platform may have put its own there
            if json.loads(state.read_text(encoding="utf-8"))["pid"] == os.getpid():
                state.unlink()
        if lock is not None:
            os.close(lock)


def serving(folder: PlatformFolder) -> Connection | None:
    """Where a `serve` of this platform answers now, if one runs.

    A process id alone says little: it may be another's by now, so the lock has to be held too.
    """
    try:
        state: dict[str, Any] = json.loads((folder.root / "serving.json").read_text(encoding="utf-8"))
        if not _held(folder.root / _LOCK):
            return None
        with suppress(PermissionError):  # another user's process
            os.kill(int(state["pid"]), 0)
        return Connection(http=state["http"], grpc=state["grpc"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _held(path: Path) -> bool:
    """Whether a process holds the lock."""
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _needs_cpu(release: Release, choice: ServerChoice) -> list[str]:
    if choice.kind != "embedded" and has_gpu():
        return []
    return [
        entry["folder"]
        for entry in release.models()
        if entry["kind"] != "ensemble" and cpu_override(release.config(entry["folder"])) is not None
    ]
