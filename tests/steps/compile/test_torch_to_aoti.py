"""``torch-to-aoti`` compiles one graph for all sizes, under the names that Triton knows it by."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import open_runner
from tritonforge.steps.compile.torch_to_aoti import by_position

from .torch_sources import SIGNATURE, module_source

pytest.importorskip("torch", reason="torch is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs g++")

Run = Callable[..., Artifact]


def test_triton_knows_tensors_by_position_and_batches_nothing() -> None:
    served, names = by_position(SIGNATURE)
    assert [str(tensor) for tensor in served.inputs] == ["INPUT__0: FP32[batch,4]", "INPUT__1: FP32[batch,3]"]
    assert names == {"inputs": {"x": "INPUT__0", "mask": "INPUT__1"}, "outputs": {"y": "OUTPUT__0", "s": "OUTPUT__1"}}
    assert served.batched is False


@needs_compiler
def test_control_flow_on_data_is_refused_at_the_users_line(run: Run, store: LocalStore) -> None:
    with pytest.raises(CheckFailed, match="cannot make one graph") as caught:
        run("torch-to-aoti", {}, inputs={"model": module_source(store, "Branch")})
    assert "net.py" in caught.value.details[0] and "line 25" in caught.value.details[0]
    assert "`backend: python`" in str(caught.value.hint)


@pytest.mark.slow
@needs_compiler
def test_a_package_answers_as_its_source_at_all_sizes(run: Run, store: LocalStore, tmp_path: Path) -> None:
    made = run("torch-to-aoti", {}, inputs={"model": module_source(store, "Named")})
    assert made.metadata["file"] == "model.pt2" and made.metadata["made_by"].startswith("AOTInductor")
    store.place(made, "model.pt2", tmp_path / "model.pt2")
    runner = open_runner(made, tmp_path)
    for rows in (1, 2, 7):
        inputs = {"x": np.ones((rows, 4), np.float32), "mask": np.ones((rows, 3), np.float32)}
        by_source = runner.run(inputs)
        as_served = runner.run({"INPUT__0": inputs["x"], "INPUT__1": inputs["mask"]})
        assert by_source["s"].tolist() == as_served["OUTPUT__1"].tolist() == [3.0] * rows
