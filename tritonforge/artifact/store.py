"""The content-addressed store: key → artifact digest → files. First writer wins.

``ArtifactStore`` is all that a build needs of one, so that a shared remote store can stand in front of, or behind,
a local folder. ``LocalStore`` keeps::

    blobs/ab/<sha256>           bytes of one file, read-only
    artifacts/ab/<digest>.json  a manifest
    keys/ab/<key>.json          which artifact a step made for this key, with which tools and when
    roots/<digest>.json         folders whose builds must survive garbage collection
    staging/                    work in progress; what a killed build leaves here is swept
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tritonforge.artifact.artifact import Artifact, Draft, FileEntry
from tritonforge.artifact.digest import canonical_json, digest_bytes, digest_file
from tritonforge.artifact.linking import holds, place_file
from tritonforge.artifact.sealed import KnownFiles, seal
from tritonforge.durable import disk_errors, fault_point, folder_lock, fsync_file, fsync_folder, write_atomic
from tritonforge.errors import CheckFailed


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What the store knows under a key: the artifact, the hardware facets it is tied to, and how it came to be.

    ``away`` says that the artifact's files may be in the remote store alone.
    """

    artifact: str
    facets: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    away: bool = False


class ArtifactStore(Protocol):
    """What a build asks of a store."""

    def lookup(self, key: str) -> KeyRecord | None:
        """The record of ``key`` if its artifact is whole."""

    def artifact(self, digest: str) -> Artifact | None:
        """The manifest called ``digest`` if every file of it is at hand."""

    def place(self, artifact: Artifact, path: str, target: Path) -> None:
        """Make ``target`` the file ``path`` of ``artifact``, linked where that is safe."""

    def commit(
        self, key: str, staged: Path, draft: Draft, *, facets: Mapping[str, str], provenance: Mapping[str, Any]
    ) -> Artifact:
        """Take a step's staged files in and bind them to ``key``; an earlier writer's artifact wins."""

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """An empty folder on the store's file system, gone afterwards."""


class LocalStore:
    """A store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> LocalStore:
        """Make the folders.

        Raises:
            EnvironmentLacks: the folder cannot be written.
        """
        with disk_errors("cannot write the store", self.root):
            for name in ("blobs", "artifacts", "keys", "roots", "staging"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        return self

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep garbage collection out while a build runs."""
        with folder_lock(self.root / ".lock", shared=True):
            yield

    def _sharded(self, kind: str, digest: str, suffix: str = "") -> Path:
        return Path(f"{self.root}/{kind}/{digest[:2]}/{digest}{suffix}")

    @property
    def unpushed(self) -> Path:
        """Where notes lie of the keys that are to be sent, a folder for each remote store."""
        return self.root / "unpushed"

    def blob(self, sha256: str) -> Path:
        """Where the bytes ``sha256`` lie."""
        return self._sharded("blobs", sha256)

    def lookup(self, key: str) -> KeyRecord | None:
        record = self.record(key)
        return None if record is None or self.artifact(record.artifact) is None else record

    def known(self, key: str) -> KeyRecord | None:
        """The record of ``key`` if its artifact is whole, or was left in the remote store by :meth:`admit`."""
        record = self.record(key)
        if record is None or self.artifact(record.artifact) is not None:
            return record
        return record if record.away and self.manifest(record.artifact) is not None else None

    def record(self, key: str) -> KeyRecord | None:
        """The record of ``key``, whether or not its artifact is whole."""
        data = _read_json(self._sharded("keys", key, ".json"))
        if not data or not isinstance(data.get("artifact"), str):
            return None
        away = data.get("away") is True
        return KeyRecord(data["artifact"], data.get("facets", {}), data.get("provenance", {}), away)

    def is_bound(self, key: str) -> bool:
        """Whether there is a record of ``key``, without reading it."""
        return self._sharded("keys", key, ".json").exists()

    def artifact(self, digest: str) -> Artifact | None:
        artifact = self.manifest(digest)
        return artifact if artifact is not None and all(map(self.has, artifact.files.values())) else None

    def has(self, entry: FileEntry) -> bool:
        """Whether the bytes of a file are here; one that was written into since it came is read."""
        return holds(self.blob(entry.sha256), entry.sha256, entry.size)

    def manifest(self, digest: str) -> Artifact | None:
        """The manifest called ``digest``, whether or not the files that it names are here."""
        data = _read_json(self._sharded("artifacts", digest, ".json"))
        if data is None:
            return None
        try:
            artifact = Artifact.from_json(data)
        except (AttributeError, KeyError, TypeError):
            return None
        return artifact if artifact.digest == digest else None

    def place(self, artifact: Artifact, path: str, target: Path) -> None:
        place_file(self.blob(artifact.files[path].sha256), target)

    def damaged(self, artifact: Artifact) -> list[str]:
        """The files of ``artifact`` that are here and whose bytes are not what their digests say. Reads every byte."""
        return [
            path
            for path, entry in artifact.files.items()
            if (blob := self.blob(entry.sha256)).exists() and digest_file(blob) != entry.sha256
        ]

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        folder, lock = self._new_staging()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def _new_staging(self) -> tuple[Path, int]:
        """A folder and a lock on it, which the kernel releases when this process dies; then it may be swept."""
        while True:
            folder = Path(tempfile.mkdtemp(dir=self.root / "staging"))
            lock = -1
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if folder.is_dir():
                    return folder, lock
            except (FileNotFoundError, BlockingIOError):
                pass  # swept in the instant before it was locked
            if lock >= 0:
                os.close(lock)

    def commit(
        self,
        key: str,
        staged: Path,
        draft: Draft,
        *,
        facets: Mapping[str, str],
        provenance: Mapping[str, Any],
        known: KnownFiles | None = None,
    ) -> Artifact:
        """As the protocol says; staged files that are ``known`` are not read."""
        known = known or KnownFiles()
        files: dict[str, FileEntry] = {}
        for path in sorted(staged.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise CheckFailed(
                    "a step wrote something that an artifact cannot hold",
                    expected="files and folders",
                    found=f"'{path.relative_to(staged)}' is a link or a special file",
                )
            if path.is_file():
                files[path.relative_to(staged).as_posix()] = self._take(path, known)
        artifact = Artifact(draft.format, files, draft.signature, draft.metadata)
        self._write_manifest(artifact)
        record = {"artifact": artifact.digest, "facets": dict(facets), "provenance": dict(provenance)}
        winner = self._bind(key, canonical_json(record))
        return artifact if winner == artifact.digest else self.artifact(winner) or artifact

    def admit(self, key: str, artifact: Artifact, record: KeyRecord) -> KeyRecord:
        """Bind what another machine made to ``key``; ``record.away`` says that its files may be elsewhere.

        An artifact that is whole here already wins. The files of one that is not away were received before.
        """
        self._write_manifest(artifact)
        data = {
            "artifact": artifact.digest,
            "facets": dict(record.facets),
            "provenance": dict(record.provenance),
            **({"away": True} if record.away else {}),
        }
        self._bind(key, canonical_json(data))
        return self.known(key) or record

    def _write_manifest(self, artifact: Artifact) -> None:
        manifest = self._sharded("artifacts", artifact.digest, ".json")
        write_atomic(manifest, canonical_json(artifact.to_json()), before="store.manifest.rename")

    def receive(self, path: Path, entry: FileEntry) -> None:
        """Take in a staged file whose bytes were held against ``entry`` while they came."""
        self._move_in(path, entry.sha256)

    def _take(self, path: Path, known: KnownFiles) -> FileEntry:
        digest, size = known.digest(path) or digest_file(path), path.stat().st_size
        blob = self.blob(digest)
        # A file that the user gave away takes the place of a copy, whose bytes would be on the disk a second time.
        if not _is(blob, digest, size) or (known.is_theirs(path) and not path.samefile(blob)):
            self._move_in(path, digest)
        return FileEntry(digest, size)

    def _move_in(self, path: Path, digest: str) -> None:
        blob = self.blob(digest)
        path.chmod(0o444)
        seal(path, digest)
        fsync_file(path)
        blob.parent.mkdir(parents=True, exist_ok=True)
        fault_point("store.blob.link")
        path.replace(blob)
        fsync_folder(blob.parent)
        fault_point("store.blob.linked")

    def _bind(self, key: str, record: bytes) -> str:
        """Bind ``key`` unless a whole artifact is bound already; the digest that is bound in the end."""
        path = self._sharded("keys", key, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{key}.{os.getpid()}.{digest_bytes(record)[:8]}.tmp")
        try:
            staged.write_bytes(record)
            fsync_file(staged)
            for _ in range(3):
                fault_point("store.key.link")
                try:
                    os.link(staged, path)
                except FileExistsError:
                    known = self.lookup(key)
                    if known is not None:
                        return known.artifact
                    with folder_lock(self.root / ".repair"):
                        if path.exists() and self.lookup(key) is None:
                            fault_point("store.key.unbind")
                            path.unlink()  # its artifact is damaged: it no longer counts as a writer
                    continue
                fsync_folder(path.parent)
                fault_point("store.key.linked")
                break
        finally:
            staged.unlink(missing_ok=True)
        return str(json.loads(record)["artifact"])

    def forget(self, key: str) -> None:
        """Unbind ``key``, so that its step runs again (``build --force``)."""
        fault_point("store.key.forget")
        self._sharded("keys", key, ".json").unlink(missing_ok=True)

    def add_root(self, folder: Path) -> None:
        """Remember a folder of builds, whose records say which keys they still need."""
        name = digest_bytes(os.fspath(folder).encode())
        path = self.root / "roots" / f"{name}.json"
        root = {"folder": os.fspath(folder)}
        if _read_json(path) != root:
            write_atomic(path, canonical_json(root), before="store.root.rename")

    def roots(self) -> list[Path]:
        """The remembered folders that still exist."""
        found = (_read_json(path) for path in sorted((self.root / "roots").glob("*.json")))
        folders = [item.get("folder") for item in found if item]
        return [Path(folder) for folder in folders if isinstance(folder, str) and Path(folder).is_dir()]

    def sweep_staging(self) -> None:
        """Delete what killed builds left behind: staging folders that no process holds any more."""
        for folder in (self.root / "staging").iterdir():
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)


def default_home() -> Path:
    """``$TRITONFORGE_HOME``, else ``$XDG_CACHE_HOME/tritonforge``, else ``~/.cache/tritonforge``."""
    home = os.environ.get("TRITONFORGE_HOME")
    if home:
        return Path(home).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache").expanduser().absolute() / "tritonforge"


def _is(blob: Path, digest: str, size: int) -> bool:
    """Whether a blob is there and whole: a step that ran anew is the occasion to heal one that is not."""
    try:
        return blob.stat().st_size == size and digest_file(blob) == digest
    except OSError:
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
