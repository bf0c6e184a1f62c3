"""sha256 of values and of files; a file that did not change is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tritonforge.artifact.sealed import is_sealed

_RACY_NS: Final = 2_000_000_000
"""A file younger than this may change again within its timestamp's resolution: its digest is not remembered."""
_MAPPED_NS: Final = 60_000_000_000
"""A file younger than this may be written through a mapping without another time."""


def canonical_json(value: object) -> bytes:
    """One byte form for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: object) -> str:
    """The sha256 (hex) of ``canonical_json(value)``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_bytes(data: bytes) -> str:
    """The sha256 (hex) of ``data``."""
    return hashlib.sha256(data).hexdigest()


_LARGE: Final = 64 << 20
_PIECE: Final = 4 << 20


def digest_file(path: Path) -> str:
    """The sha256 (hex) of a file's bytes, read in pieces; of a large file the next is read while one is hashed."""
    with path.open("rb", buffering=0) as stream:
        if os.fstat(stream.fileno()).st_size < _LARGE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        return _digest_ahead(stream)


def _digest_ahead(stream: io.FileIO) -> str:
    from concurrent.futures import ThreadPoolExecutor

    digest = hashlib.sha256()
    now, later = memoryview(bytearray(_PIECE)), memoryview(bytearray(_PIECE))
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        reading = reader.submit(stream.readinto, now)
        while count := reading.result():
            reading = reader.submit(stream.readinto, later)
            digest.update(now[:count])
            now, later = later, now
    return digest.hexdigest()


class Read(NamedTuple):
    """What a file held: its sha256, its size in bytes, and what :func:`stamp` says as long as it holds that.

    Without a stamp the file was written in the last minute, and perhaps through a mapping: the kernel gives a page that
    is written again no other time until it has reached the disk, which it has half a minute later.
    """

    sha256: str
    size: int
    stamp: str | None


def stamp(found: os.stat_result) -> str:
    """What changes whenever a file does."""
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}:{found.st_ino}:{found.st_dev}"


def _taken_over(found: os.stat_result, before: str, sha256: str) -> bool:
    """Whether a file differs from its stamp of ``before`` in just what happens when the store takes it over."""
    size, *_, inode, device = before.split(":")
    same = (str(found.st_size), str(found.st_ino), str(found.st_dev)) == (size, inode, device)
    return same and is_sealed(found, sha256)


class FileDigests:
    """Digests of files remembered by (path, size, mtime, ctime, inode), and facts remembered by digest.

    It is only a memory: where its file cannot be read or written, or a row is damaged, everything is computed anew.
    """

    def __init__(self, file: Path) -> None:
        self._db: sqlite3.Connection | None = None
        with contextlib.suppress(OSError, sqlite3.Error):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stat TEXT, sha256 TEXT)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS facts (sha256 TEXT, kind TEXT, value TEXT, PRIMARY KEY (sha256, kind))"
            )

    def digest(self, path: Path, reading: Callable[[Path], None] = lambda path: None) -> Read:
        """What ``path`` holds; a file that the store took over by a link is known by its seal.

        ``reading`` is told of a file whose bytes are about to be read.
        """
        before = path.stat()
        now, clock = stamp(before), time.time_ns()
        row = self._one("SELECT sha256, stat FROM files WHERE path = ?", (os.fspath(path),))
        known = None if row is None else _unchecked(row[0], row[1])
        if known is None or not (row[1] == now or _taken_over(before, row[1], known)):
            reading(path)
            known = digest_file(path)
            if clock - max(before.st_mtime_ns, before.st_ctime_ns) > _RACY_NS:
                row = (os.fspath(path), now, _checked(known, now))
                self._run("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", row)
        return Read(known, before.st_size, now if clock - before.st_mtime_ns > _MAPPED_NS else None)

    def moved(self, old: Path, new: Path) -> None:
        """Go on knowing the files below a folder that was renamed: that changes none of them."""
        below, length = f"{old}{os.sep}", len(f"{old}{os.sep}")
        self._run(
            "UPDATE OR REPLACE files SET path = ? || substr(path, ?) WHERE substr(path, 1, ?) = ?",
            (f"{new}{os.sep}", length + 1, length, below),
        )

    def fact(self, sha256: str, kind: str) -> Any:
        """What was remembered about the content ``sha256``, or None."""
        row = self._one("SELECT value FROM facts WHERE sha256 = ? AND kind = ?", (sha256, kind))
        text = None if row is None else _unchecked(row[0], f"{sha256} {kind}")
        return None if text is None else json.loads(text)

    def remember(self, sha256: str, kind: str, value: Mapping[str, Any] | list[Any]) -> None:
        """Remember a fact about the content ``sha256``."""
        text = _checked(json.dumps(value), f"{sha256} {kind}")
        self._run("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", (sha256, kind, text))

    def _one(self, query: str, arguments: tuple[str, ...]) -> Any:
        if self._db is None:
            return None
        try:
            return self._db.execute(query, arguments).fetchone()
        except sqlite3.Error:
            return None

    def _run(self, query: str, arguments: tuple[str | int, ...]) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute(query, arguments)


def _checked(text: str, about: str) -> str:
    """What is remembered about something, with a checksum: a wrong digest would be believed for ever."""
    return f"{digest_bytes(f'{about} {text}'.encode())[:16]} {text}"


def _unchecked(row: object, about: str) -> str | None:
    text = str(row)[17:]
    return text if _checked(text, about) == row else None
