"""Every kind of TensorFlow source, from the file to the embedded Triton."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest
import tritonclient.http
from cli.commands import Serving, Workshop

from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.live, pytest.mark.slow]

SPEC = """\
models:
  saved: {source: saved, max_batch_size: 4}
  keras: {source: net.keras, max_batch_size: 4}
  legacy: {source: net.h5, max_batch_size: 4}
  frozen: {source: net.pb, max_batch_size: 4}
  restored:
    source: checkpoint/m-1.index
    tensorflow: {factory: "nets:make", code: {nets.py: nets.py}}
    max_batch_size: 4
  text: {source: text.keras, max_batch_size: 4}
  words: {source: words.keras, max_batch_size: 4, backend: python}
  upper: {source: upper, max_batch_size: 4, backend: python}
"""


@pytest.fixture(scope="module")
def built(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, dict[str, Any]]:
    """All of them in one release, and the models that they were made from."""
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    workshop = Workshop.make(tmp_path_factory.mktemp("tensorflow") / "w", runtime.root.parent)
    folder: Path = workshop.folder
    models = {"net": making.cnn(), "text": making.text(), "words": making.words(), "restored": making.nets()["make"]()}
    models["net"].export(str(folder / "saved"), verbose=False)
    for name in ("net.keras", "net.h5"):
        models["net"].save(folder / name)
    making.freeze(models["net"], "image", folder / "net.pb")
    tf.train.Checkpoint(model=models["restored"]).save(str(folder / "checkpoint" / "m"))
    making.write_nets(folder)
    for name in ("text", "words"):
        models[name].save(folder / f"{name}.keras")
    making.upper(folder / "upper")
    workshop.write(SPEC)
    assert workshop.build()["new"] is True
    return workshop, models


@pytest.fixture(scope="module")
def client(built: tuple[Workshop, dict[str, Any]]) -> Iterator[Any]:
    serving = Serving.start(built[0], timeout=180)
    with tritonclient.http.InferenceServerClient(serving.http) as client:
        yield client
    assert serving.stop() == 0


def ask(client: Any, model: str, **inputs: tuple[str, Any]) -> Any:
    """The vendor's client and nothing of ours."""
    tensors = []
    for name, (datatype, value) in inputs.items():
        tensor = tritonclient.http.InferInput(name, value.shape, datatype)
        tensor.set_data_from_numpy(value)
        tensors.append(tensor)
    return client.infer(model, tensors)


def test_golden_cases_hold_live(built: tuple[Workshop, dict[str, Any]]) -> None:
    done = built[0].json("validate", timeout=300)
    assert done["ok"] is True
    assert all(model["compared"] > 0 for model in done["models"])
    assert {entry["folder"]: entry["backend"] for entry in built[0].published().values()} == {
        **dict.fromkeys(("saved", "keras", "legacy", "frozen", "restored", "text"), "onnxruntime"),
        **dict.fromkeys(("words", "upper"), "python"),
    }


@pytest.mark.parametrize(
    ("model", "output"), [("saved", "output_0"), ("keras", "scores"), ("legacy", "scores"), ("frozen", "Identity")]
)
def test_images_are_answered_as_by_keras(
    client: Any, built: tuple[Workshop, dict[str, Any]], model: str, output: str
) -> None:
    image = np.random.default_rng(1).standard_normal((3, 16, 16, 3)).astype(np.float32)
    found = ask(client, model, image=("FP32", image)).as_numpy(output)
    assert np.allclose(found, built[1]["net"](image, training=False).numpy(), atol=1e-4)


def test_a_restored_checkpoint_answers_as_the_model_that_was_saved(
    client: Any, built: tuple[Workshop, dict[str, Any]]
) -> None:
    x = np.random.default_rng(2).standard_normal((2, 4)).astype(np.float32)
    assert np.allclose(ask(client, "restored", x=("FP32", x)).as_numpy("y"), built[1]["restored"](x).numpy(), atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 30])
def test_token_ids_of_any_length(client: Any, built: tuple[Workshop, dict[str, Any]], length: int) -> None:
    feeds = {"ids": np.full((2, length), 3, np.int32), "extra": np.ones((2, 3), np.float32)}
    found = ask(client, "text", ids=("INT32", feeds["ids"]), extra=("FP32", feeds["extra"]))
    wanted = built[1]["text"](feeds)
    assert all(np.allclose(found.as_numpy(name), wanted[name].numpy(), atol=1e-4) for name in ("probs", "score"))


def test_raw_text_is_answered_by_tensorflow_itself(client: Any, built: tuple[Workshop, dict[str, Any]]) -> None:
    import tensorflow as tf

    text = np.array([[b"a tensor"], ["Grüße 42".encode()]], dtype=object)
    found = ask(client, "words", text=("BYTES", text)).as_numpy("scores")
    assert np.allclose(found, built[1]["words"](tf.constant(text, tf.string)).numpy(), atol=1e-5)
    answer = ask(client, "upper", text=("BYTES", text))
    assert answer.as_numpy("upper").tolist() == [[b"A TENSOR"], ["GRüßE 42".encode()]]
    assert answer.as_numpy("length").tolist() == [[8], [10]]


def test_what_onnx_lacks_is_one_error_that_names_it(built: tuple[Workshop, dict[str, Any]], tmp_path: Path) -> None:
    other = built[0].copy(tmp_path / "copy")
    other.write("models:\n  words: {source: words.keras, max_batch_size: 4}\n")
    done = other.run("build", "--json", timeout=180)
    assert done.code == 1
    said = json.dumps(done.json)
    assert "StaticRegexReplace, StringSplitV2" in said
    assert "backend: python" in said
