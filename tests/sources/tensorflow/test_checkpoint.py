from __future__ import annotations

from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from sources.tensorflow.conftest import Lay
from tritonforge.errors import CheckFailed
from tritonforge.sources.tensorflow.load import load_function

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def recipe(factory: str | None = "nets:make", **more: Any) -> dict[str, Any]:
    return {"kind": "tf-checkpoint", "factory": factory, **more}


@pytest.mark.parametrize("form", ["held", "with an optimizer", "itself", "weights"])
def test_the_factorys_model_gets_every_value(keras: Any, tf: Any, lay: Lay, tmp_path: Path, form: str) -> None:
    model = making.nets()["make"]()
    source = tmp_path / "saved"
    source.mkdir()
    if form == "weights":
        model.save_weights(source / "m.weights.h5")
    elif form == "itself":
        tf.train.Checkpoint(model).write(str(source / "m"))
    elif form == "held":
        tf.train.Checkpoint(net=model).save(str(source / "m"))
    else:
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(source / "m"))
    loaded = load_function(lay(source, nets=True), recipe())
    assert loaded.outputs == ("y",)
    assert np.allclose(loaded.run({"x": X})["y"], model(X).numpy(), atol=1e-6)


def test_the_latest_of_several_is_taken(tf: Any, lay: Lay, tmp_path: Path) -> None:
    net = making.nets()["Net"]()
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(net=net), str(tmp_path / "saved"), max_to_keep=3)
    for value in (1.0, 2.0):
        net.w.assign(tf.fill([4, 2], value))
        manager.save()
    found = load_function(lay(tmp_path / "saved", nets=True), recipe("nets:Net")).run(
        {"x": np.ones((1, 4), np.float32)}
    )
    assert found["output_0"].tolist() == [[8.0, 8.0]]


def test_variables_that_do_not_fit_are_listed(keras: Any, tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.train.Checkpoint(model=making.nets()["make"]()).save(str(tmp_path / "saved" / "m"))
    with pytest.raises(CheckFailed, match="does not fit the model") as raised:
        load_function(lay(tmp_path / "saved", nets=True), recipe(arguments={"width": 9}))
    assert raised.value.found == "0 variables are missing, 3 have another shape"
    assert any("[4, 8] instead of [4, 9]" in line for line in raised.value.details)


def test_variables_that_are_missing_are_listed(keras: Any, tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.train.Checkpoint(net=making.nets()["Net"]()).save(str(tmp_path / "saved" / "m"))
    with pytest.raises(CheckFailed, match="does not fit the model") as raised:
        load_function(lay(tmp_path / "saved", nets=True), recipe())
    assert str(raised.value.found).startswith("4 variables are missing")


def test_weights_that_do_not_fit_are_refused(keras: Any, lay: Lay, tmp_path: Path) -> None:
    making.nets()["make"]().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(CheckFailed, match="do not fit the model") as raised:
        load_function(lay(tmp_path / "m.weights.h5", nets=True), recipe(arguments={"width": 9}))
    assert "(4, 9)" in str(raised.value.found)


def test_a_method_of_a_module_is_its_signature(tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.train.Checkpoint(net=making.nets()["Net"]()).save(str(tmp_path / "saved" / "m"))
    folder = lay(tmp_path / "saved", nets=True)
    with pytest.raises(CheckFailed, match=r"Net\.halve has no input signature"):
        load_function(folder, recipe("nets:Net", signature="halve"))
    declared = {"inputs": [["x", "FP32", ["batch", 2]]], "outputs": []}
    loaded = load_function(folder, recipe("nets:Net", signature="halve", declared=declared))
    assert loaded.run({"x": np.array([[2, 4]], np.float32)})["half"].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (None, "a checkpoint alone is no model"),
        ("nets:nothing", "'nets:nothing' does not exist"),
        ("nowhere.at.all:make", "cannot be imported"),
        ("nets:broken", "the factory 'nets:broken' fails"),
        ("nets:number", "gives a int"),
    ],
)
def test_a_factory_that_makes_no_model(tf: Any, lay: Lay, tmp_path: Path, factory: str | None, message: str) -> None:
    (tmp_path / "m.index").write_bytes(b"")
    with pytest.raises(CheckFailed, match=message):
        load_function(lay(tmp_path / "m.index", nets=True), recipe(factory))


def test_a_checkpoint_without_its_data_is_refused(tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.train.Checkpoint(net=making.nets()["Net"]()).save(str(tmp_path / "saved" / "m"))
    with pytest.raises(CheckFailed, match="cannot be read") as raised:
        load_function(lay(tmp_path / "saved" / "m-1.index", nets=True), recipe("nets:Net"))
    assert raised.value.expected == "NAME.index beside every NAME.data-*"


def test_names_of_tensorflow_1_are_no_objects(tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "saved"), tensor_names=["w"], shape_and_slices=[""], tensors=[tf.zeros([4, 2])]
    )
    folder = lay(tmp_path / "saved.index", nets=True)
    (folder / "model" / "saved.data-00000-of-00001").write_bytes((tmp_path / "saved.data-00000-of-00001").read_bytes())
    with pytest.raises(CheckFailed, match="of TensorFlow 1") as raised:
        load_function(folder, recipe("nets:Net"))
    assert raised.value.found == "w"


def test_modules_of_one_name_belong_to_their_source(tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.train.Checkpoint(net=making.nets()["Net"]()).save(str(tmp_path / "saved" / "m"))
    folder = lay(tmp_path / "saved", nets=True)
    load_function(folder, recipe("nets:Net"))
    (folder / "code" / "nets.py").write_text("def Net():\n    raise ValueError('another one')\n")
    with pytest.raises(CheckFailed) as raised:
        load_function(folder, recipe("nets:Net"))
    assert raised.value.found == "ValueError: another one"
