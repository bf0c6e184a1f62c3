"""Sources laid out as the import step lays them out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from making_tensorflow import write_nets

Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """``lay(file_or_folder)`` copies it below ``model/``; ``nets=True`` puts the factories below ``code/``."""

    def lay(source: Path | None = None, *, nets: bool = False) -> Path:
        folder = tmp_path / "laid"
        if source is not None and source.is_dir():
            shutil.copytree(source, folder / "model")
        else:
            (folder / "model").mkdir(parents=True)
            if source is not None:
                shutil.copy(source, folder / "model")
        if nets:
            write_nets(folder / "code")
        return folder

    return lay


@pytest.fixture(scope="session")
def keras() -> Any:
    return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture(scope="session")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="tensorflow is not installed")
