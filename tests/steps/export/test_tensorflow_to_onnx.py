from __future__ import annotations

from pathlib import Path

import making_tensorflow as making
import onnx
import pytest

from steps.conftest import Run, golden_config
from steps.tensorflow_sources import ImportTensorFlow, import_tensorflow  # noqa: F401 - a fixture
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed


def prove(run: Run, source: Artifact, converted: Artifact, format_: str = "onnx") -> Artifact:
    """The comparison of a converted artefact with its source."""
    golden = run("golden", golden_config(format="tensorflow"), inputs={"model": source})
    return run("parity", {"format": format_, "tolerance": None}, inputs={"model": converted, "golden": golden})


def graph(store: LocalStore, made: Artifact) -> onnx.ModelProto:
    return onnx.load(store.blob(made.files["model.onnx"].sha256))


@pytest.mark.parametrize("form", ["m.keras", "m.h5", "saved", "m.pb"])
def test_every_form_of_a_network_keeps_its_names_and_values(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    store: LocalStore,
    tmp_path: Path,
    form: str,
) -> None:
    model, path = making.cnn(), tmp_path / form
    if form == "saved":
        model.export(str(path), verbose=False)
        source, output = import_tensorflow("savedmodel", path), "output_0"
    elif form == "m.pb":
        source, output = import_tensorflow("graphdef", making.freeze(model, "image", path)), "Identity"
    else:
        model.save(path)
        source, output = import_tensorflow("keras", path), "scores"
    made = run("tensorflow-to-onnx", {"opset": None}, inputs={"model": source})
    assert made.signature == source.signature
    network = graph(store, made).graph
    shape = [dim.dim_param or dim.dim_value for dim in network.input[0].type.tensor_type.shape.dim]
    assert (network.input[0].name, shape) == ("image", ["batch", 16, 16, 3])
    assert network.output[0].name == output
    assert made.metadata["made_by"].startswith("tf2onnx ")
    assert "NHWC" in made.metadata["notes"][0]
    assert prove(run, source, made).metadata["max_abs"] < 1e-5


def test_dynamic_length_and_two_outputs(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    store: LocalStore,
    tmp_path: Path,
) -> None:
    making.text().save(tmp_path / "m.keras")
    source = import_tensorflow("keras", tmp_path / "m.keras")
    made = run("tensorflow-to-onnx", {"opset": None}, inputs={"model": source})
    names = [(item.name, len(item.type.tensor_type.shape.dim)) for item in graph(store, made).graph.output]
    assert names == [("probs", 2), ("score", 2)]
    assert prove(run, source, made).metadata["comparisons"] == 12


def test_a_table_of_strings_is_converted(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
) -> None:
    source = import_tensorflow("savedmodel", making.lookup(tmp_path / "m"))
    made = run("tensorflow-to-onnx", {"opset": None}, inputs={"model": source})
    assert prove(run, source, made).metadata["max_abs"] == 0


def test_a_checkpoint_and_its_factory(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
) -> None:
    import tensorflow as tf

    tf.train.Checkpoint(model=making.nets()["make"]()).save(str(tmp_path / "saved" / "m"))
    code = making.write_nets(tmp_path / "code")
    source = import_tensorflow("tf-checkpoint", tmp_path / "saved", {"factory": "nets:make"}, code=code)
    made = run("tensorflow-to-onnx", {"opset": None}, inputs={"model": source})
    assert prove(run, source, made).metadata["max_abs"] < 1e-5


@pytest.mark.parametrize("opset", [13, 15, 18])
def test_the_opset_is_the_one_that_is_asked_for(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
    opset: int,
) -> None:
    making.mlp().save(tmp_path / "m.keras")
    source = import_tensorflow("keras", tmp_path / "m.keras")
    assert run("tensorflow-to-onnx", {"opset": opset}, inputs={"model": source}).metadata["opset"] == opset


def test_an_opset_that_cannot_be_written_is_refused(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
) -> None:
    making.mlp().save(tmp_path / "m.keras")
    source = import_tensorflow("keras", tmp_path / "m.keras")
    with pytest.raises(CheckFailed, match="cannot write opset 99") as raised:
        run("tensorflow-to-onnx", {"opset": 99}, inputs={"model": source})
    assert raised.value.expected == "an opset from 1 to 18"


def test_operators_that_onnx_lacks_are_named(
    run: Run,
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
) -> None:
    making.words().save(tmp_path / "m.keras")
    source = import_tensorflow("keras", tmp_path / "m.keras")
    with pytest.raises(CheckFailed, match="nothing for some operators") as raised:
        run("tensorflow-to-onnx", {"opset": None}, inputs={"model": source})
    assert raised.value.found == "StaticRegexReplace, StringSplitV2"
    assert "backend: python" in str(raised.value.hint)
