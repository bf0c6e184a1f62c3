"""A folder to run the program in."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_onnx import batched_add, save

from cli.commands import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty folder, with a private TRITONFORGE_HOME."""
    return Workshop.make(tmp_path / "w")


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One model, `good`, built and current. Tests work on copies."""
    made = Workshop.make(tmp_path_factory.mktemp("built") / "w")
    save(made.folder / "good.onnx", batched_add())
    made.write("models:\n  good: {source: good.onnx, max_batch_size: 4}\n")
    assert made.build()["new"] is True
    return made


@pytest.fixture
def built(first_release: Workshop, tmp_path: Path) -> Workshop:
    """A copy of it for this test alone."""
    return first_release.copy(tmp_path / "copy")
