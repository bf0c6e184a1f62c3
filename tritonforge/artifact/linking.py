"""Put a file somewhere without a second copy of its bytes where the file system allows it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from tritonforge.artifact.digest import digest_file
from tritonforge.durable import fsync_file

_FICLONE: Final = 0x40049409  # linux/fs.h: share the blocks, copy on write
_SEALED_FROM: Final = 1_000_000_000
"""2001-09-09T01:46:40Z; see :func:`seal`."""
_NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}


def seal(path: Path, sha256: str) -> None:
    """Mark a file that has these bytes, so that a later change of them shows without reading it.

    The mark is its modification time, a moment between 2001 and 2010 that follows from the digest: whoever writes into
    the file changes it, and tools that compare sizes and times (rsync) tell files of one size from each other.
    """
    moment = _sealed_ns(sha256)
    os.utime(path, ns=(moment, moment))


def is_sealed(stat: os.stat_result, sha256: str) -> bool:
    """Whether nobody wrote into a file since it was sealed.

    A disk that loses bits of its own accord changes no time: `tritonforge cache verify` reads every byte.
    """
    return stat.st_mtime_ns == _sealed_ns(sha256)


def _sealed_ns(sha256: str) -> int:
    return (_SEALED_FROM + int(sha256[:7], 16)) * 1_000_000_000


def holds(path: Path, sha256: str, size: int) -> bool:
    """Whether a file is there with these bytes; one that is not sealed is read, and sealed where it is right."""
    try:
        found = path.stat()
        if found.st_size != size:
            return False
        if is_sealed(found, sha256):
            return True
        if digest_file(path) != sha256:
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
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            pass
        else:
            os.fsync(writer.fileno())
            return True
    target.unlink()
    if link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
        else:
            return True
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    return False


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file and give the sha256 (hex) of exactly the bytes that were copied.

    Blocks are shared where the file system can do that: later changes of the one file are none of the other.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            pass
        else:
            return digest_file(target)
        while piece := reader.read(1 << 20):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """An independent copy: blocks are shared by reflink where the file system can, else the kernel copies them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)
