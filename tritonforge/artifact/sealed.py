"""Finished files carry a seal, so that a later change of them shows without reading them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from tritonforge.errors import CheckFailed, Place

_SEALED_FROM: Final = 1_000_000_000
"""2001-09-09T01:46:40Z; see :func:`seal`."""


def seal(path: Path, sha256: str) -> None:
    """Mark a file that has these bytes, so that a later change of them shows without reading it.

    The mark is its modification time, a moment between 2001 and 2010 that follows from the digest: whoever writes into
    the file changes it, and tools that compare sizes and times (rsync) tell files of one size from each other.
    """
    moment = _sealed_ns(sha256)
    os.utime(path, ns=(moment, moment))


def is_sealed(stat: os.stat_result, sha256: str) -> bool:
    """Whether nobody wrote into a file since it was sealed.

    It does not guard against somebody who sets the time back, nor against a disk that loses bits of its own accord:
    `tritonforge cache verify` reads every byte.
    """
    return stat.st_mtime_ns == _sealed_ns(sha256)


def _sealed_ns(sha256: str) -> int:
    return (_SEALED_FROM + int(sha256[:7], 16)) * 1_000_000_000


class _Known(NamedTuple):
    sha256: str
    size: int
    mtime_ns: int
    theirs: Path | None


class KnownFiles:
    """Digests of a step's sources by inode, so that a large one is not read once more when it becomes part of an
    artifact. A hard link to such a file is the same file; a copy of it is another one.

    Files that are the user's own (``theirs``) may not change until the artifact is made.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], _Known] = {}

    def add(self, path: Path, sha256: str, *, theirs: Path | None = None) -> None:
        """Remember the digest of a file as long as nobody writes into it; ``theirs`` is where the user has it."""
        if theirs is None:
            seal(path, sha256)  # a write in the very tick in which it was copied would not show
        found = path.stat()
        self._known[found.st_dev, found.st_ino] = _Known(sha256, found.st_size, found.st_mtime_ns, theirs)

    def digest(self, path: Path) -> str | None:
        """The digest of a known file that is as it was; None of any other.

        Raises:
            CheckFailed: it is the user's own, and was written into.
        """
        found = path.stat()
        known = self._known.get((found.st_dev, found.st_ino))
        if known is None:
            return None
        if (known.size, known.mtime_ns) == (found.st_size, found.st_mtime_ns):
            return known.sha256
        if known.theirs is None:
            return None
        raise CheckFailed(
            "a source was changed while it was built",
            place=Place(known.theirs),
            hint="run the build again; replace files of a source with `link: true`, never write into them",
        )

    def is_theirs(self, path: Path) -> bool:
        """Whether the file is the user's own."""
        found = path.stat()
        known = self._known.get((found.st_dev, found.st_ino))
        return known is not None and known.theirs is not None
