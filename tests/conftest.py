"""What all tests share: a private TRITONFORGE_HOME, a store, and folders with a spec."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3_server
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


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server, shared by all tests."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server.serving() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> s3_server.Bucket:
    """An empty bucket there, which this process and those that it starts find and may use."""
    made = s3_server.new_bucket(s3_endpoint)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
