"""Stores to send to and fetch from: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tritonforge.artifact.artifact import Artifact, Draft
from tritonforge.artifact.remote.address import parse_address
from tritonforge.artifact.remote.link import SharedSettings
from tritonforge.artifact.remote.objects import Objects, open_objects
from tritonforge.artifact.remote.shared import SharedStore
from tritonforge.artifact.store import LocalStore

KEY = "12" * 32


def put(store: LocalStore, files: Mapping[str, bytes], key: str = KEY, seconds: float = 1.0) -> Artifact:
    """Commit an artifact to a local store, as a step does."""
    with store.staging() as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return store.commit(key, folder, Draft("toy"), facets={}, provenance={"seconds": seconds, "step": "toy"})


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A folder that all machines see."""
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    folder = tmp_path / "team"
    folder.mkdir()
    return folder


@pytest.fixture
def another(tmp_path: Path) -> LocalStore:
    """The local store of another machine."""
    return LocalStore(tmp_path / "another").open()


Shared = Callable[..., SharedStore]


def shared(store: LocalStore, objects: Objects, *, write: bool = True, signing_key: bytes | None = None) -> SharedStore:
    """A build's dealings with a store."""
    settings = SharedSettings(str(objects.address), lambda: objects, objects.timeout_s, write, signing_key)
    return SharedStore(settings, store)


def folder_objects(folder: Path, timeout_s: float = 5.0) -> Objects:
    return open_objects(parse_address(f"file://{folder}"), timeout_s=timeout_s)
