from __future__ import annotations

from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import Runner, can_run, open_runner


@pytest.fixture(params=["tensorflow", "python"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    """The same SavedModel as a source, and as what the Python backend serves."""
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    making.two_signatures(tmp_path / "model")
    metadata: dict[str, Any] = {"recipe": {"kind": "savedmodel", "signature": "encode"}}
    if request.param == "python":
        metadata["runner"] = "tensorflow"
        metadata["recipe"]["names"] = {"inputs": {"features": "x"}, "outputs": {"vector": "code"}}
    artifact = Artifact(request.param, {}, None, metadata)
    assert can_run(artifact)
    return open_runner(artifact, tmp_path, optimise=False)


def test_answers_are_by_name(runner: Runner) -> None:
    renamed = "features" if "vector" in runner.loaded.outputs else "x"  # type: ignore[attr-defined]
    found = runner.run({renamed: np.ones((2, 4), np.float32)})
    assert next(iter(found.values())).tolist() == [[18.0, 22.0, 26.0]] * 2
    assert set(found) == ({"vector"} if renamed == "features" else {"code"})
    assert runner.title.startswith("tensorflow 2.")


def test_what_tensorflow_refuses_is_said_with_the_shapes(runner: Runner) -> None:
    (name,) = [tensor.name for tensor in runner.loaded.inputs]  # type: ignore[attr-defined]
    with pytest.raises(CheckFailed, match="cannot run the model") as raised:
        runner.run({name: np.ones((2, 5), np.float32)})
    assert f"{name} [2, 5]" in str(raised.value.found)
