from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from sources.tensorflow.conftest import Lay
from tritonforge.errors import CheckFailed
from tritonforge.sources.tensorflow.load import load_function

RECIPE: dict[str, Any] = {"kind": "keras"}


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5"])
def test_names_and_values_are_the_models(keras: Any, lay: Lay, tmp_path: Path, name: str) -> None:
    model = making.mlp()
    model.save(tmp_path / name)
    loaded = load_function(lay(tmp_path / name), RECIPE)
    assert [str(item) for item in loaded.inputs] == ["x: FP32[x.0,4]"]
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    assert np.allclose(loaded.run({"x": x})["probs"], model(x).numpy(), atol=1e-6)


def test_a_functional_model_with_dictionaries(keras: Any, lay: Lay, tmp_path: Path) -> None:
    model = making.text()
    model.save(tmp_path / "m.keras")
    loaded = load_function(lay(tmp_path / "m.keras"), RECIPE)
    assert [str(item) for item in loaded.inputs] == ["extra: FP32[extra.0,3]", "ids: INT32[ids.0,ids.1]"]
    assert loaded.outputs == ("probs", "score")
    assert loaded.ranges == {"ids": {"low": 0, "high": 19}}
    feeds = {"ids": np.array([[1, 2, 19]], np.int32), "extra": np.ones((1, 3), np.float32)}
    found, wanted = loaded.run(feeds), model(feeds)
    assert all(np.allclose(found[name], wanted[name].numpy(), atol=1e-6) for name in wanted)


def test_statistics_are_those_of_inference(keras: Any, lay: Lay, tmp_path: Path) -> None:
    model = making.cnn()
    model.save(tmp_path / "m.keras")
    image = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
    found = load_function(lay(tmp_path / "m.keras"), RECIPE).run({"image": image})["scores"]
    assert np.allclose(found, model(image, training=False).numpy(), atol=1e-5)


def test_a_file_of_keras_2_is_read(keras: Any, lay: Lay, tmp_path: Path) -> None:
    loaded = load_function(lay(making.keras_2(tmp_path / "m.h5")), RECIPE)
    assert [str(item) for item in loaded.inputs] == ["input_1: FP32[input_1.0,4]"]
    assert loaded.run({"input_1": np.ones((1, 4), np.float32)})["dense"].tolist() == [[4.0, 5.0, 6.0]]


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_lambda_is_never_run(keras: Any, lay: Lay, tmp_path: Path, name: str) -> None:
    making.with_lambda().save(tmp_path / name)
    with pytest.raises(CheckFailed, match="layers that are Python code") as raised:
        load_function(lay(tmp_path / name), RECIPE)
    assert "doubled (Lambda)" in str(raised.value.found)
    assert "custom_objects" in str(raised.value.hint)


def test_a_vocabulary_that_is_a_path_is_refused(keras: Any, lay: Lay, tmp_path: Path) -> None:
    making.words().save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as own, zipfile.ZipFile(tmp_path / "m.keras", "w") as changed:
        for item in own.namelist():
            data = own.read(item)
            if item == "config.json":
                config = json.loads(data)
                layer = next(at for at in config["config"]["layers"] if at["class_name"] == "TextVectorization")
                layer["config"]["vocabulary"] = "/etc/passwd"
                data = json.dumps(config).encode()
            changed.writestr(item, data)
    with pytest.raises(CheckFailed, match="read other files") as raised:
        load_function(lay(tmp_path / "m.keras"), RECIPE)
    assert "/etc/passwd" in str(raised.value.found)


def test_weights_in_another_file_are_refused(keras: Any, lay: Lay, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    making.mlp().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/secret.h5", "/data")
    with pytest.raises(CheckFailed, match="takes data from other files") as raised:
        load_function(lay(tmp_path / "m.h5"), RECIPE)
    assert raised.value.found == "/elsewhere → /etc/secret.h5"


def test_weights_alone_ask_for_the_factory(keras: Any, lay: Lay, tmp_path: Path) -> None:
    making.mlp().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(CheckFailed, match="weights but no model") as raised:
        load_function(lay(tmp_path / "m.weights.h5"), RECIPE)
    assert "factory" in str(raised.value.hint)


def test_a_subclass_needs_its_class_and_its_inputs(keras: Any, lay: Lay, tmp_path: Path) -> None:
    model = making.nets()["Sub"]()
    a, b = np.ones((2, 4), np.float32), np.full((2, 4), 2, np.float32)
    wanted = model(a, b)
    model.save(tmp_path / "m.keras")
    folder = lay(tmp_path / "m.keras", nets=True)
    with pytest.raises(CheckFailed, match="cannot load the file") as raised:
        load_function(folder, RECIPE)
    assert "custom_objects" in str(raised.value.hint)
    named = {**RECIPE, "custom_objects": {"Sub": "nets:Sub"}}
    with pytest.raises(CheckFailed, match="does not know its inputs") as raised:
        load_function(folder, named)
    declared = {"inputs": [["a", "FP32", ["batch", 4]], ["b", "FP32", ["batch", 4]]], "outputs": []}
    loaded = load_function(folder, {**named, "declared": declared})
    assert loaded.outputs == ("sum", "difference")
    # Keras leaves layers that are not built yet with random weights, and only warns.
    assert np.allclose(loaded.run({"a": a, "b": b})["sum"], wanted["sum"].numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_broken_file_is_refused(keras: Any, lay: Lay, tmp_path: Path, name: str) -> None:
    making.mlp().save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckFailed, match=r"truncated or no zip|no whole HDF5"):
        load_function(lay(tmp_path / name), RECIPE)


def test_two_files_are_no_source(keras: Any, lay: Lay, tmp_path: Path) -> None:
    folder = lay()
    for name in ("a.keras", "b.keras"):
        (folder / "model" / name).write_bytes(b"")
    with pytest.raises(CheckFailed, match="is one file") as raised:
        load_function(folder, RECIPE)
    assert raised.value.found == "a.keras, b.keras"
