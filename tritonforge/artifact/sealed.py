"""Private files whose digest is known, so that a large one is not read once more when it is taken into the store."""

from __future__ import annotations

from pathlib import Path

from tritonforge.artifact.linking import is_sealed, seal


class SealedFiles:
    """Digests of sealed files by inode. A hard link to one is the same file; a copy of it is another one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def seal(self, path: Path, sha256: str) -> None:
        """Remember the digest of a file that no other process knows of, as long as nobody writes into it."""
        seal(path, sha256)
        found = path.stat()
        self._known[found.st_dev, found.st_ino, found.st_size] = sha256

    def digest(self, path: Path) -> str | None:
        """The digest of a sealed file that is as it was; None of any other."""
        found = path.stat()
        sha256 = self._known.get((found.st_dev, found.st_ino, found.st_size))
        return sha256 if sha256 is not None and is_sealed(found, sha256) else None
