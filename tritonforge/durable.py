"""Writes that are whole or absent: stage beside, fsync, rename.

Every durable step has a name (:data:`FAULT_POINTS`). ``TRITONFORGE_FAULT=NAME[:kill|:enospc|:cut]`` makes the process
die with SIGKILL, meet a full disk, or lose its connection, at that step; ``NAME#3`` is the third time that it passes
there. ``tests/faults`` goes through all of them.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from tritonforge.errors import EnvironmentLacks, ForgeError

Item = TypeVar("Item")

FAULT_POINTS: Final[tuple[str, ...]] = (
    "store.root.rename",
    "store.blob.link",
    "store.blob.linked",
    "store.manifest.rename",
    "store.key.link",
    "store.key.linked",
    "store.key.unbind",
    "store.key.forget",
    "build.record.rename",
    "lock.rename",
    "lock.renamed",
    "release.stage",
    "release.staged",
    "release.rename",
    "release.renamed",
    "current.flip",
    "current.flipped",
    "history.rename",
    "evidence.rename",
    "release.prune",
    "release.pruned",
)


_passed = itertools.count(1)
_times: collections.defaultdict[str, Iterator[int]] = collections.defaultdict(lambda: itertools.count(1))


def fault_point(name: str) -> None:
    """Mark a durable step; acts only when ``TRITONFORGE_FAULT`` names it (``NAME``, or ``NAME#3``: the third time in
    this process), or its number in the process (``#17``).

    ``TRITONFORGE_TRACE`` names a file that gets a line for every point that is passed.
    """
    asked, trace = os.environ.get("TRITONFORGE_FAULT"), os.environ.get("TRITONFORGE_TRACE")
    if not asked and not trace:
        return
    number, time_here = next(_passed), next(_times[name])
    if trace:
        with Path(trace).open("a", encoding="utf-8") as stream:
            stream.write(f"{number} {name}\n")
    wanted, _, how = (asked or "").partition(":")
    if wanted not in (name, f"{name}#{time_here}", f"#{number}"):
        return
    if how == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    if how == "cut":
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET), name)
    os.kill(os.getpid(), signal.SIGKILL)


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the bytes of ``path`` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path, *, before: str | None = None, after: str | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes replace ``path`` in one rename when the block ends; an error leaves nothing of them.

    ``before`` and ``after`` name fault points around the rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.{_here()}.{os.getpid()}-", suffix=".tmp", dir=path.parent)
    staged = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        if before:
            fault_point(before)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
    if after:
        fault_point(after)


def each_at_once(do: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Do something for each item, many at a time: what waits for the disk waits for all of them together.

    Raises:
        Exception: the first that was raised, once nothing is under way any more.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        started = [pool.submit(do, item) for item in items]
        try:
            for future in started:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_atomic(path: Path, data: bytes, *, before: str | None = None, after: str | None = None) -> None:
    """Replace ``path`` by ``data`` in one rename; ``before`` and ``after`` name fault points around it."""
    with replacing(path, before=before, after=after) as stream:
        stream.write(data)


def exchange(staged: Path, target: Path) -> None:
    """Swap two folders in one step, so that ``target`` exists at every instant (Linux' ``renameat2``).

    Where the file system cannot, ``target`` is away between two renames.
    """
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None and renameat2(-100, os.fsencode(staged), -100, os.fsencode(target), 2) == 0:
        return
    away = staged.with_name(f"{staged.name}-old")
    target.rename(away)
    staged.rename(target)
    away.rename(staged)


def _here() -> str:
    """This machine's name as part of a file's: process ids mean something only on the machine that gave them."""
    return "".join(character for character in socket.gethostname() if character.isalnum())[:32]


def sweep(path: Path) -> None:
    """Delete what processes of this machine that are gone left staged for ``path``."""
    beginning = f".{path.name}.{_here()}."
    with os.scandir(path.parent) as entries:
        left = [entry.name for entry in entries if entry.name.startswith(beginning) and entry.name.endswith(".tmp")]
    for name in left:
        owner = name[len(beginning) :].partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            (path.parent / name).unlink(missing_ok=True)


def write_json(path: Path, value: object, *, before: str | None = None, after: str | None = None) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode(), before=before, after=after)


def point_link(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` point at ``target`` in one rename."""
    staged = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    try:
        fault_point("current.flip")
        staged.replace(link)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    fsync_folder(link.parent)
    fault_point("current.flipped")


@contextlib.contextmanager
def folder_lock(
    path: Path, *, shared: bool = False, wait: bool = True, notify: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold an advisory lock that the kernel releases when its holder dies.

    The holder's process id, host and start stand in the file, so that whoever waits can say for whom.
    ``notify`` is called once with that text when the lock is held by another.

    Raises:
        EnvironmentLacks: it is held by another process and ``wait`` is false, or its file cannot be written.
    """
    with disk_errors(f"cannot lock {path.parent}", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 400, 0).decode(errors="replace").strip() or "another process"
            if not wait:
                raise EnvironmentLacks(
                    f"{path.parent} is in use by {holder}", hint="wait for it to end, or stop it"
                ) from None
            if notify is not None:
                notify(holder)
            fcntl.flock(fd, mode)
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, and names nobody
            os.ftruncate(fd, 0)  # also when shared: what stands there names an earlier holder
            if not shared:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()} since {stamp}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def disk_errors(what: str, path: Path) -> Iterator[None]:
    """Turn the file system's errors into one clear :class:`EnvironmentLacks`."""
    try:
        yield
    except ForgeError:
        raise
    except OSError as error:
        raise describe_os_error(error, what, path) from error


def describe_os_error(error: OSError, what: str, path: Path) -> EnvironmentLacks:
    """Say what the file system refused, where, and what to do."""
    where = error.filename if isinstance(error.filename, str) and os.sep in error.filename else str(path)
    hints = {
        errno.ENOSPC: "free some space (`tritonforge cache gc` frees the store), then run it again: it goes on",
        errno.EDQUOT: "the disk quota is used up: free some space, then run the command again",
        errno.EROFS: "the file system is mounted read-only: choose another folder or mount it writable",
        errno.EACCES: "change the permissions or the owner of that folder, or run as a user who may write there",
        errno.EPERM: "change the permissions or the owner of that folder, or run as a user who may write there",
    }
    return EnvironmentLacks(
        f"{what}: {os.strerror(error.errno) if error.errno else error}", found=where, hint=hints.get(error.errno or 0)
    )
