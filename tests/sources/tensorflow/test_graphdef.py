from __future__ import annotations

from pathlib import Path
from typing import Any

import making_tensorflow as making
import numpy as np
import pytest

from sources.tensorflow.conftest import Lay
from tritonforge.errors import CheckFailed
from tritonforge.sources.tensorflow.load import load_function


def recipe(**more: Any) -> dict[str, Any]:
    return {"kind": "graphdef", **more}


def write(tf: Any, path: Path, build: Any) -> Path:
    """A graph that ``build`` makes, as it is."""
    with tf.Graph().as_default() as graph:
        build()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def split(tf: Any) -> Any:
    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        keep = tf.compat.v1.placeholder_with_default(1.0, [], name="keep")
        tf.split(x * keep, 2, axis=1, name="halves")

    return build


def test_placeholders_go_in_and_what_nothing_reads_comes_out(tf: Any, lay: Lay, tmp_path: Path) -> None:
    model = making.mlp()
    loaded = load_function(lay(making.freeze(model, "x", tmp_path / "m.pb")), recipe())
    assert [str(item) for item in loaded.inputs] == ["x: FP32[x.0,4]"]
    assert loaded.outputs == ("Identity",)
    x = np.ones((3, 4), np.float32)
    assert np.allclose(loaded.run({"x": x})["Identity"], model(x).numpy(), atol=1e-6)


def test_named_tensors_with_ports(tf: Any, lay: Lay, tmp_path: Path) -> None:
    folder = lay(write(tf, tmp_path / "m.pb", split(tf)))
    assert load_function(folder, recipe()).outputs == ("halves",)
    loaded = load_function(folder, recipe(inputs=["x:0"], outputs=["halves:0", "halves:1"]))
    assert loaded.outputs == ("halves", "halves_1")
    found = loaded.run({"x": np.array([[1, 2, 3, 4]], np.float32)})
    assert {name: value.tolist() for name, value in found.items()} == {"halves": [[1, 2]], "halves_1": [[3, 4]]}


def test_an_unknown_tensor_is_refused_with_near_names(tf: Any, lay: Lay, tmp_path: Path) -> None:
    folder = lay(write(tf, tmp_path / "m.pb", split(tf)))
    with pytest.raises(CheckFailed, match="no tensor 'halve:0'") as raised:
        load_function(folder, recipe(outputs=["halve"]))
    assert "'halves'" in str(raised.value.hint)


def test_variables_without_values_are_refused(tf: Any, lay: Lay, tmp_path: Path) -> None:
    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.identity(x * tf.compat.v1.get_variable("w", [4], use_resource=False), name="y")

    with pytest.raises(CheckFailed, match="not frozen") as raised:
        load_function(lay(write(tf, tmp_path / "m.pb", build)), recipe())
    assert raised.value.found == "w"


def test_an_input_without_a_rank_is_refused(tf: Any, lay: Lay, tmp_path: Path) -> None:
    def build() -> None:
        tf.identity(tf.compat.v1.placeholder(tf.float32, None, name="x"), name="y")

    with pytest.raises(CheckFailed, match="'x' has no rank"):
        load_function(lay(write(tf, tmp_path / "m.pb", build)), recipe())


def test_file_access_is_refused(tf: Any, lay: Lay, tmp_path: Path) -> None:
    def build() -> None:
        tf.io.read_file(tf.compat.v1.placeholder(tf.string, [], name="path"), name="content")

    with pytest.raises(CheckFailed) as raised:
        load_function(lay(write(tf, tmp_path / "m.pb", build)), recipe())
    assert raised.value.found == "ReadFile (content)"


@pytest.mark.parametrize(("data", "message"), [(b"", "holds no graph"), (b"\x0a\xff\xff", "truncated or no GraphDef")])
def test_a_broken_file_is_refused(tf: Any, lay: Lay, tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "m.pb").write_bytes(data)
    with pytest.raises(CheckFailed, match=message):
        load_function(lay(tmp_path / "m.pb"), recipe())
