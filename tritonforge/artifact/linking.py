"""Put a file somewhere without a second copy of its bytes where the file system allows it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Final

from tritonforge.artifact.digest import digest_file, stamp
from tritonforge.artifact.sealed import is_sealed, seal
from tritonforge.durable import fsync_file

_FICLONE: Final = 0x40049409  # linux/fs.h: share the blocks, copy on write
_NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}


def holds(file: str | Path, sha256: str, size: int) -> bool:
    """Whether a file is there with these bytes; one that is not sealed is read, and sealed where it is right."""
    try:
        found = os.stat(file)  # noqa: PTH116 - thousands of files are looked at, and a Path takes longer than that
        if found.st_size != size:
            return False
        if is_sealed(found, sha256):
            return True
        path = Path(file)
        if digest_file(path) != sha256:
            return False
        if stamp(path.stat()) != stamp(found):
            return False
    except OSError:
        return False
    with contextlib.suppress(OSError):  # somebody else's file: it is read again next time
        seal(path, sha256)
    return True


def place_file(source: Path, target: Path) -> None:
    """Hard-link an immutable file of the store; copy it where that cannot be (another file system, too many links).

    Only for places that are never changed or reloaded in place: a link shares the inode, and Triton reloads a live
    version whose ctime moves.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        copy_file(source, target)
        target.chmod(0o444)
        found = source.stat()
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
        fsync_file(target)


def share_file(source: Path, target: Path, *, link: bool) -> bool:
    """Take over a file that stays somebody else's; False where its bytes had to be copied.

    Blocks are shared where the file system can do that (each side may then change its own); else, with ``link``, the
    inode is: who writes into the one file writes into the other, and the link counts as a change of the file (ctime).
    """
    source = source.resolve()  # of a symbolic link the link itself would be linked
    target.parent.mkdir(parents=True, exist_ok=True)
    if _clone(source, target):
        fsync_file(target)
        return True
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            return True
    copy_file(source, target)
    fsync_file(target)
    return False


def take_file(source: Path, target: Path, sha256: str, *, seen: str | None, link: bool) -> bool:
    """Make ``target`` hold what ``source`` holds; False where that is not what ``sha256`` says.

    ``seen`` is the :func:`stamp` of the source when it was read: where it still has that, nothing is read again. With
    ``link`` the target is the source itself, read-only from now on, where the file system does not share blocks.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    before = source.stat()
    known = stamp(before) == seen
    if link and not _clone(source, target):
        os.link(source.resolve(), target)
        target.chmod(0o444)
        right = known or digest_file(target) == sha256
        return right and target.stat().st_mtime_ns == source.stat().st_mtime_ns == before.st_mtime_ns
    if link:
        return (known and stamp(source.stat()) == seen) or digest_file(target) == sha256
    if not known:
        return copy_hashed(source, target) == sha256
    copy_file(source, target)
    return stamp(source.stat()) == seen


def _clone(source: Path, target: Path) -> bool:
    """A copy that shares the blocks; False, and nothing is there, where the file system cannot do that."""
    with source.open("rb") as reader, target.open("xb") as writer:
        cloned = _cloned(reader, writer)
    if not cloned:
        target.unlink()
    return cloned


def _cloned(reader: BinaryIO, writer: BinaryIO) -> bool:
    try:
        fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
    except OSError:
        return False
    return True


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file and give the sha256 (hex) of exactly the bytes that were copied.

    Blocks are shared where the file system can do that: later changes of the one file are none of the other.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        if _cloned(reader, writer):
            return digest_file(target)
        while piece := reader.read(1 << 20):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """An independent copy: blocks are shared by reflink where the file system can, else the kernel copies them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        if not _cloned(reader, writer):
            while os.sendfile(writer.fileno(), reader.fileno(), None, 1 << 30):
                pass
