"""Where a `serve` says that it is; secrets of connections."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tritonforge.actions.connections import secret_value
from tritonforge.actions.serve import _announced, serving
from tritonforge.errors import Place
from tritonforge.spec.connection import SecretRef
from tritonforge.triton.connection import Connection

RELEASE: Any = SimpleNamespace(digest="d")


def test_a_serve_is_found_only_while_it_runs(tmp_path: Path) -> None:
    folder: Any = SimpleNamespace(root=tmp_path)
    state = tmp_path / "serving.json"
    assert serving(folder) is None
    with _announced(folder, Connection(http="h:1", grpc="g:1"), RELEASE):
        found = serving(folder)
        assert found is not None and found.http == "h:1"
        left = state.read_text()
    assert serving(folder) is None and not state.exists()
    assert json.loads(left)["pid"] == os.getpid()
    state.write_text(left)  # as after SIGKILL, the process id being another's by now
    assert serving(folder) is None


def test_a_second_serve_takes_over_when_the_first_ends(tmp_path: Path) -> None:
    folder: Any = SimpleNamespace(root=tmp_path)
    first = _announced(folder, Connection(http="h:1", grpc="g:1"), RELEASE)
    first.__enter__()
    with _announced(folder, Connection(http="h:2", grpc="g:2"), RELEASE) as announce:
        found = serving(folder)
        assert found is not None and found.http == "h:2"
        state = (tmp_path / "serving.json").read_text()
        first.__exit__(None, None, None)
        (tmp_path / "serving.json").write_text(state)  # in one process both have one id
        announce()
        assert serving(folder) is not None


def test_the_file_of_a_secret_is_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "token").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    assert secret_value(SecretRef(file="token"), Place(), tmp_path / "spec") == "secret"
