"""Finished files carry a seal, so that a later change of them shows without reading them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

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

    A disk that loses bits of its own accord changes no time: `tritonforge cache verify` reads every byte.
    """
    return stat.st_mtime_ns == _sealed_ns(sha256)


def _sealed_ns(sha256: str) -> int:
    return (_SEALED_FROM + int(sha256[:7], 16)) * 1_000_000_000


class SealedFiles:
    """Digests of sealed files by inode, so that a large one is not read once more when it is taken into the store.

    A hard link to such a file is the same file; a copy of it is another one.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def seal(self, path: Path, sha256: str) -> None:
        """Remember the digest of a file as long as nobody writes into it."""
        seal(path, sha256)
        found = path.stat()
        self._known[found.st_dev, found.st_ino, found.st_size] = sha256

    def digest(self, path: Path) -> str | None:
        """The digest of a sealed file that is as it was; None of any other."""
        found = path.stat()
        sha256 = self._known.get((found.st_dev, found.st_ino, found.st_size))
        return sha256 if sha256 is not None and is_sealed(found, sha256) else None
