"""Two models, an ensemble over one of them, built and current."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.commands import Workshop
from making_onnx import batched_add, save

SPEC = """\
models:
  plus: {source: plus.onnx, max_batch_size: 4, config: {instance_group: [{count: 1, kind: KIND_CPU}]}}
  apart: {source: apart.onnx, max_batch_size: 4}
ensembles:
  over: {inputs: [x], outputs: [y], steps: [{model: plus}]}
  above: {inputs: [x], outputs: [y], steps: [{model: over}]}
  beside: {inputs: [x], outputs: [y], steps: [{model: apart}]}
"""


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("actions") / "w")
    save(made.folder / "plus.onnx", batched_add(1.0))
    save(made.folder / "apart.onnx", batched_add(2.0))
    made.write(SPEC)
    assert made.build()["new"] is True
    return made


@pytest.fixture
def forge(first: Workshop, tmp_path: Path) -> Workshop:
    """A copy for this test alone."""
    return first.copy(tmp_path / "copy")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty folder, with a private TRITONFORGE_HOME."""
    return Workshop.make(tmp_path / "w")
