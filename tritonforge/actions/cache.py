"""``cache``: what the store holds, and making it smaller."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.artifact.store import LocalStore
from tritonforge.build.record import read_record
from tritonforge.durable import disk_errors, folder_lock
from tritonforge.repository.release import PlatformFolder
from tritonforge.spec.lock import read_lock


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A key of the store. ``size`` is that of its artifact's files, in bytes; ``used`` when a root still needs it."""

    key: str
    step: str
    artifact: str
    size: int
    made: str
    used: bool

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Collected:
    """What garbage collection removed, or would remove: counts, and bytes that no release links any more."""

    keys: int
    artifacts: int
    blobs: int
    bytes: int
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def list_cache(store: LocalStore) -> list[CacheEntry]:
    """Every key, the newest first."""
    kept_keys, kept_artifacts = _needed(store)
    entries = []
    for path, record in _records(store):
        artifact = store.artifact(record["artifact"])
        size = 0 if artifact is None else sum(entry.size for entry in artifact.files.values())
        provenance = record.get("provenance", {})
        used = path.stem in kept_keys or record["artifact"] in kept_artifacts
        entries.append(
            CacheEntry(
                path.stem,
                str(provenance.get("step", "?")),
                record["artifact"],
                size,
                str(provenance.get("started", "")),
                used,
            )
        )
    return sorted(entries, key=lambda entry: entry.made, reverse=True)


def collect_garbage(store: LocalStore, *, older_than_s: float = 0.0, dry_run: bool = False) -> Collected:
    """Delete what no current release, no kept release, no lock and no last build needs.

    Builds are kept out while it runs. Releases keep their own links: none of them loses a byte. Notes of what is to be
    sent to a team's store go with their keys.

    Raises:
        EnvironmentLacks: a build uses the store now.
    """
    with disk_errors("cannot clean the store", store.root), folder_lock(store.open().root / ".lock", wait=False):
        store.sweep_staging()
        if not dry_run:
            for kind in ("keys", "artifacts", "blobs"):
                for left in (store.root / kind).glob("*/.*.tmp"):  # nobody writes while the lock is held
                    left.unlink(missing_ok=True)
        kept_keys, kept_artifacts = _needed(store)
        border = time.time() - older_than_s
        keys = []
        for path, record in _records(store):
            if path.stem in kept_keys:
                kept_artifacts.add(record["artifact"])
            elif record["artifact"] not in kept_artifacts and path.stat().st_mtime <= border:
                keys.append(path)
            else:
                kept_artifacts.add(record["artifact"])
        manifests: list[Path] = []
        live: set[str] = set()
        for path in (store.root / "artifacts").glob("*/*.json"):
            if path.stem in kept_artifacts:
                artifact = store.artifact(path.stem)
                if artifact is not None:
                    live.update(entry.sha256 for entry in artifact.files.values())
            else:
                manifests.append(path)
        blobs = [path for path in (store.root / "blobs").glob("*/*") if path.name not in live]
        freed = sum(stat.st_size for path in blobs if (stat := path.stat()).st_nlink == 1)
        if not dry_run:
            # Keys first: a key without its artifact is a miss, an artifact without its key is only waste.
            for path in (*keys, *manifests, *blobs):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            for note in store.unpushed.glob("*/*"):
                if not store.is_bound(note.name):
                    note.unlink(missing_ok=True)
        return Collected(len(keys), len(manifests), len(blobs), freed, dry_run)


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of an artifact whose bytes are not what its digest says."""

    artifact: str
    path: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def verify_cache(store: LocalStore, *, dry_run: bool = False) -> list[Damage]:
    """Read every byte of the store; damaged files are removed, so that the next build makes them anew.

    A release shares its bytes with the store; ``build --force`` reads the current release too, and replaces it where
    it is damaged.
    """
    found = []
    for path in sorted((store.root / "artifacts").glob("*/*.json")):
        artifact = store.manifest(path.stem)
        for name in [] if artifact is None else store.damaged(artifact):
            assert artifact is not None
            digest = artifact.files[name].sha256
            found.append(Damage(path.stem, name, digest))
            if not dry_run:
                store.blob(digest).unlink(missing_ok=True)
    return found


def _records(store: LocalStore) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in (store.root / "keys").glob("*/*.json"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_bytes())
            if isinstance(record, dict) and isinstance(record.get("artifact"), str):
                yield path, record


def _needed(store: LocalStore) -> tuple[set[str], set[str]]:
    """Keys of last builds, and artifacts of releases and of the newest numbers in locks."""
    keys: set[str] = set()
    artifacts: set[str] = set()
    for build_root in store.roots():
        for folder in (path for path in build_root.iterdir() if path.is_dir()):
            keys.update(read_record(folder / "last-build.json").keys())
            platform = PlatformFolder(folder)
            current = platform.current()
            if current is not None:
                artifacts.update(item["artifact"] for item in current.models())
            for entry in platform.history():
                with contextlib.suppress(Exception):
                    artifacts.update(item["artifact"] for item in platform.find(entry["release"]).models())
        for lock_file in build_root.parent.glob("*.lock"):
            with contextlib.suppress(Exception):
                for folders in read_lock(lock_file).versions.values():
                    artifacts.update(numbers[max(numbers)] for numbers in folders.values() if numbers)
    return keys, artifacts


def disk_use(store: LocalStore) -> int:
    """Bytes of all blobs."""
    return sum(path.stat().st_size for path in (store.root / "blobs").glob("*/*")) if os.path.isdir(store.root) else 0  # noqa: PTH112
