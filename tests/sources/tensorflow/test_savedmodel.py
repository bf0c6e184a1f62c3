from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from sources.tensorflow.conftest import Lay
from tritonforge.errors import CheckFailed
from tritonforge.sources.tensorflow.load import load_function


def recipe(**more: Any) -> dict[str, Any]:
    return {"kind": "savedmodel", **more}


def test_one_signature_needs_no_name(tf: Any, lay: Lay, tmp_path: Path) -> None:
    loaded = load_function(lay(making.upper(tmp_path / "m")), recipe())
    assert [str(item) for item in loaded.inputs] == ["text: BYTES[text.0,1]"]
    assert loaded.datatypes == {"length": "INT32", "upper": "BYTES"}
    found = loaded.run({"text": np.array([[b"ab"], ["ü".encode()]], dtype=object)})
    assert found["upper"].tolist() == [[b"AB"], ["ü".encode()]]
    assert found["length"].tolist() == [[2], [2]]


def test_what_keras_exports_twice_is_one_signature(keras: Any, lay: Lay, tmp_path: Path) -> None:
    model = making.mlp()
    model.export(str(tmp_path / "m"), verbose=False)
    loaded = load_function(lay(tmp_path / "m"), recipe())
    assert [str(item) for item in loaded.inputs] == ["x: FP32[x.0,4]"]
    assert loaded.outputs == ("output_0",)
    x = np.ones((2, 4), np.float32)
    assert np.allclose(loaded.run({"x": x})["output_0"], model(x).numpy(), atol=1e-6)


def test_several_signatures_are_listed_with_what_they_take(tf: Any, lay: Lay, tmp_path: Path) -> None:
    folder = lay(making.two_signatures(tmp_path / "m"))
    with pytest.raises(CheckFailed, match="signature is ambiguous") as raised:
        load_function(folder, recipe())
    assert raised.value.details == (
        "decode: (code float32[-1,3]) → (y float32[-1,4])",
        "encode: (x float32[-1,4]) → (code float32[-1,3])",
    )
    found = load_function(folder, recipe(signature="encode")).run({"x": np.ones((1, 4), np.float32)})
    assert found["code"].tolist() == [[18.0, 22.0, 26.0]]
    with pytest.raises(CheckFailed, match="no signature 'encod'") as raised:
        load_function(folder, recipe(signature="encod"))
    assert "'encode'" in str(raised.value.hint)


def test_equal_types_do_not_make_two_signatures_one(tf: Any, lay: Lay, tmp_path: Path) -> None:
    inputs = [("x", tf.float32, [None, 4])]
    made = making.save_signatures(
        tmp_path / "m", serving_default=(lambda x: {"y": x + 1}, inputs), other=(lambda x: {"y": x - 1}, inputs)
    )
    with pytest.raises(CheckFailed, match="signature is ambiguous"):
        load_function(lay(made), recipe())


def test_python_and_files_in_the_graph_are_refused_by_name(tf: Any, lay: Lay, tmp_path: Path) -> None:
    made = making.save_signatures(
        tmp_path / "m",
        serving_default=(
            lambda x: {"y": tf.py_function(lambda v: v * 2, [x], tf.float32), "z": tf.io.read_file("/etc/hostname")},
            [("x", tf.float32, [None, 4])],
        ),
    )
    with pytest.raises(CheckFailed, match="reach files, the network or Python") as raised:
        load_function(lay(made), recipe())
    assert "EagerPyFunc" in str(raised.value.found)
    assert "ReadFile" in str(raised.value.found)


def test_other_tags_are_listed(tf: Any, lay: Lay, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="no graph with these tags") as raised:
        load_function(lay(making.upper(tmp_path / "m")), recipe(tags=["gpu"]))
    assert (raised.value.expected, raised.value.found) == ("[gpu]", "[serve]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "saved_model.pb").unlink(), "this is no SavedModel"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"\x0a\xff\xff"), "truncated or no SavedModel"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b""), "holds no graph"),
        (lambda folder: shutil.rmtree(folder / "variables"), "cannot load the SavedModel"),
    ],
)
def test_a_broken_one_is_refused(keras: Any, lay: Lay, tmp_path: Path, damage: Any, message: str) -> None:
    making.mlp().export(str(tmp_path / "m"), verbose=False)
    folder = lay(tmp_path / "m")
    damage(folder / "model")
    with pytest.raises(CheckFailed, match=message):
        load_function(folder, recipe())


def test_one_without_signatures_says_how_to_save(tf: Any, lay: Lay, tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(CheckFailed, match="has no signature") as raised:
        load_function(lay(tmp_path / "m"), recipe())
    assert "model.export(path)" in str(raised.value.hint)
