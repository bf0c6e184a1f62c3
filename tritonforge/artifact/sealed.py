"""Private files whose digest is known, so that a large one is not read once more when it is taken into the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_SEAL_NS: Final = 946_684_800_000_000_000
"""2000-01-01: the time of change of a sealed file. Whoever writes into it, also through a mapping, sets that to now."""


class SealedFiles:
    """Digests of files by inode. A hard link to a sealed file is the same file; a copy of it is another one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def seal(self, path: Path, sha256: str) -> None:
        """Remember the digest of a file that no other process knows of, as long as nobody writes into it."""
        os.utime(path, ns=(_SEAL_NS, _SEAL_NS))
        found = path.stat()
        self._known[found.st_dev, found.st_ino, found.st_size] = sha256

    def digest(self, path: Path) -> str | None:
        """The digest of a sealed file that is as it was; None of any other."""
        found = path.stat()
        if found.st_mtime_ns != _SEAL_NS:
            return None
        return self._known.get((found.st_dev, found.st_ino, found.st_size))
