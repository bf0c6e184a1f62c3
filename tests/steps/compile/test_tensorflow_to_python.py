from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from steps.conftest import Run, golden_config
from steps.tensorflow_sources import ImportTensorFlow, import_tensorflow  # noqa: F401 - a fixture
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore


def prove(run: Run, source: Artifact, converted: Artifact) -> Artifact:
    golden = run("golden", golden_config(format="tensorflow"), inputs={"model": source})
    return run("parity", {"format": "tensorflow", "tolerance": None}, inputs={"model": converted, "golden": golden})


def lay_out(store: LocalStore, artifact: Artifact, folder: Path) -> Path:
    for path in artifact.files:
        store.place(artifact, path, folder / path)
    return folder


@pytest.mark.parametrize("form", ["words", "text", "upper", "frozen", "checkpoint", "subclass"])
def test_every_source_becomes_a_savedmodel_that_answers_alike(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    store: LocalStore,
    tmp_path: Path,
    form: str,
) -> None:
    import tensorflow as tf

    code = making.write_nets(tmp_path / "code")
    if form == "upper":
        source = import_tensorflow("savedmodel", making.upper(tmp_path / "m"))
    elif form == "frozen":
        source = import_tensorflow("graphdef", making.freeze(making.cnn(), "image", tmp_path / "m.pb"))
    elif form == "checkpoint":
        tf.train.Checkpoint(model=making.nets()["make"]()).save(str(tmp_path / "saved" / "m"))
        source = import_tensorflow("tf-checkpoint", tmp_path / "saved", {"factory": "nets:make"}, code=code)
    elif form == "subclass":
        model = making.nets()["Sub"]()
        model(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32))
        model.save(tmp_path / "m.keras")
        declared = {name: {"type": "FP32[4]"} for name in "ab"}
        named = {"custom_objects": {"Sub": "nets:Sub"}}
        source = import_tensorflow("keras", tmp_path / "m.keras", named, code=code, inputs=declared)
    else:
        getattr(making, form)().save(tmp_path / "m.keras")
        source = import_tensorflow("keras", tmp_path / "m.keras")
    made = run("tensorflow-to-python", {}, inputs={"model": source})
    assert (made.format, made.metadata["runner"], made.signature) == ("python", "tensorflow", source.signature)
    assert {"model.py", "model.json", "requirements.txt", "model/saved_model.pb"} <= set(made.files)
    assert not any(path.startswith("code/") for path in made.files)
    requirement = store.blob(made.files["requirements.txt"].sha256).read_text()
    assert requirement.rstrip().endswith(f"=={tf.__version__}")
    assert prove(run, source, made).metadata["max_abs"] < 1e-5


class Request(dict[str, Any]):
    """What the model file asks of a request."""


class Answer:
    def __init__(self, tensors: list[Any] = (), error: Any = None) -> None:  # type: ignore[assignment]
        self.tensors, self.error = dict(tensors), error


@pytest.fixture
def served(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """The model file itself, in this process, with a stand-in for Triton's module."""
    import tensorflow as tf

    backend = types.ModuleType("triton_python_backend_utils")
    backend.get_input_tensor_by_name = lambda request, name: types.SimpleNamespace(as_numpy=lambda: request[name])
    backend.Tensor = lambda name, value: (name, value)
    backend.InferenceResponse = Answer
    backend.TritonError = str
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    checked = making.save_signatures(
        tmp_path / "m",
        serving_default=(
            lambda x: {"y": tf.ensure_shape(tf.debugging.check_numerics(x, "bad value") * 2, [None, None])},
            [("x", tf.float32, [None, None])],
        ),
    )
    made = run("tensorflow-to-python", {}, inputs={"model": import_tensorflow("savedmodel", checked)})
    folder = lay_out(store, made, tmp_path / "repository" / "1")
    names: dict[str, Any] = {"__name__": "model"}
    exec(compile((folder / "model.py").read_text(), "model.py", "exec"), names)
    model = names["TritonPythonModel"]()
    model.initialize(
        {
            "model_repository": str(folder.parent),
            "model_version": "1",
            "model_config": json.dumps({"max_batch_size": 8}),
            "model_instance_kind": "CPU",
        }
    )
    return model


def test_requests_of_one_shape_run_as_one(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    real = served._run
    monkeypatch.setattr(served, "_run", lambda values: runs.append(len(values[0])) or real(values))
    requests = [Request(x=np.full(shape, index, np.float32)) for index, shape in enumerate([(1, 2), (2, 2), (1, 3)])]
    answers = served.execute(requests)
    assert runs == [3, 1]
    assert [answer.tensors["y"].tolist() for answer in answers] == [[[0, 0]], [[2, 2], [2, 2]], [[4, 4, 4]]]


def test_a_bad_request_fails_alone(served: Any) -> None:
    good, bad = np.ones((1, 2), np.float32), np.full((1, 2), np.nan, np.float32)
    answers = served.execute([Request(x=good), Request(x=bad)])
    assert answers[0].tensors["y"].tolist() == [[2, 2]]
    assert "bad value" in answers[1].error
