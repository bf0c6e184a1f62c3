"""The commands with ``--container IMAGE``, from a spec to an answer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cli.commands import Serving, Workshop
from making_onnx import batched_add, save

from testbed.conftest import Ours
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.testbed

SPEC = """\
models:
  plus: {source: plus.onnx, max_batch_size: 8}
  label: {source: label.py, inputs: {y: "FP32[4]"}, outputs: {best: "INT64[1]"}, max_batch_size: 8}
ensembles:
  over: {inputs: [x], outputs: [best], steps: [{model: plus}, {model: label}]}
gates:
  quick:
    model: plus
    concurrency: [1]
    windows: 10
    interval_ms: 200
    slo: {p99_ms: 60000}
"""
LABEL = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(
                        "best",
                        pb_utils.get_input_tensor_by_name(request, "y").as_numpy().argmax(axis=1, keepdims=True),
                    )
                ]
            )
            for request in requests
        ]
"""


@pytest.fixture(scope="module")
def tiny(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A release of an ONNX model, a Python model and an ensemble of both."""
    made = Workshop.make(tmp_path_factory.mktemp("container") / "with space", runtime.root.parent)
    save(made.folder / "plus.onnx", batched_add())
    (made.folder / "label.py").write_text(LABEL)
    made.write(SPEC)
    assert made.build()["new"] is True
    return made


def test_a_release_is_proven_in_a_container(tiny: Workshop, image: str, ours: Ours) -> None:
    done = tiny.json("validate", "--container", image, "--spec", tiny.folder)
    assert done["ok"] is True
    assert done["server"] == {"kind": "container", "version": "2.51.0", "title": f"Triton 2.51.0 in {image}"}
    assert {model["folder"]: model["compared"] > 0 for model in done["models"]} == {
        "plus": True,
        "label": False,
        "over": True,
    }
    assert ours() == set()


def test_a_gate_is_measured_on_a_container(tiny: Workshop, image: str, ours: Ours) -> None:
    done = tiny.json("gate", "--container", image, "quick")
    assert done["verdict"] == "pass"
    assert ours() == set()


def test_a_container_serves_until_it_is_stopped(tiny: Workshop, image: str, ours: Ours) -> None:
    serving = Serving.start(tiny, "--container", image)
    try:
        assert len(ours()) == 1
        assert tiny.json("infer", "over", '{"x": [1, 5, 2, 3]}')["outputs"] == {"best": [1]}
    finally:
        assert serving.stop() == 0
    assert ours() == set()


def test_a_container_that_is_removed_ends_its_serve(tiny: Workshop, image: str, ours: Ours, engine: Any) -> None:
    serving = Serving.start(tiny, "--container", image)
    engine.api.remove_container(ours().pop(), force=True)
    assert serving.process.wait(20) == 1
    assert "the server ended by itself" in (tiny.folder.parent / "serve.err").read_text()


def test_a_killed_serve_takes_its_container_with_it(tiny: Workshop, image: str, ours: Ours) -> None:
    serving = Serving.start(tiny, "--container", image)
    assert len(ours()) == 1
    serving.stop(signal.SIGKILL)
    # The next command removes what is left, if the warden has not done so yet.
    assert tiny.json("infer", "--container", image, "plus", "[1, 5, 2, 3]")["outputs"] == {"y": [2, 6, 3, 4]}
    assert ours() == set()


def test_a_model_that_does_not_load_fails_its_validation(
    tiny: Workshop, image: str, ours: Ours, tmp_path: Path
) -> None:
    broken = tiny.copy(tmp_path / "broken")
    (broken.folder / "label.py").write_text(LABEL.replace("import numpy as np", "import absent_there as np"))
    broken.build()
    done = broken.json("validate", "--container", image, code=1)
    problems = {model["folder"]: " ".join(model["problems"]) for model in done["models"]}
    assert problems["plus"] == ""
    assert "No module named 'absent_there'" in problems["label"]
    assert ours() == set()


def test_an_image_that_is_not_there_ends_with_the_environments_code(tiny: Workshop, image: str, ours: Ours) -> None:
    done = tiny.run("validate", "--container", "127.0.0.1:9/absent:1")
    assert done.code == 3
    assert "the image 127.0.0.1:9/absent:1 is not in the Docker engine, and cannot be pulled" in done.err
    assert "Traceback" not in done.err


def test_an_engine_elsewhere_is_refused(tiny: Workshop, image: str) -> None:
    elsewhere = {**os.environ, "DOCKER_HOST": "ssh://somebody@192.0.2.1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", elsewhere)
        done = tiny.run("validate", "--container", image, "--json")
    assert done.code == 3
    assert "the Docker engine is on another machine" in json.loads(done.out or done.err)["message"]
