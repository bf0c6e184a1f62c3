"""What all tests share: a private TRITONFORGE_HOME, a store, and folders with a spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tritonforge.artifact.store import LocalStore

settings.register_profile("quick", max_examples=60, deadline=None)
settings.load_profile("quick")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TRITONFORGE_HOME of this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TRITONFORGE_HOME", str(folder))
    return folder


@pytest.fixture
def store(home: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(home / "store").open()


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``spec/forge.yaml`` (or another file there) below a two-line head; its first own line is line 3."""

    def write(text: str, name: str = "forge.yaml", *, head: str = "apiVersion: tritonforge/v1\nname: tiny\n") -> Path:
        path = tmp_path / "spec" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text, encoding="utf-8")
        return path

    return write
