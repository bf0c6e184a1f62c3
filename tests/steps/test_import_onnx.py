from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import making_onnx as making
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, onnx_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed

Import = Callable[..., Artifact]


def flattened() -> onnx.ModelProto:
    """Fails at run time: it reshapes to a fixed ``[1, 4]``."""
    shape = making.constant("shape", [1, 4])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return making.model([node], [making.value("x", ["N", 4])], [making.value("y", ["M", 4])], [shape])


def row_sums_over_time() -> onnx.ModelProto:
    """A running sum over axis 0: the shape follows, the rows do not stand alone."""
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    return making.model(
        [node], [making.value("x", ["N", 4])], [making.value("y", ["N", 4])], [making.constant("axis", 0)]
    )


@pytest.mark.parametrize(
    ("make", "batched", "note"),
    [
        (making.batched_add, True, None),
        (making.dynamic_text, True, None),
        (making.two_inputs, True, None),
        (making.text_in_text_out, True, None),
        (making.unbatched_add, False, None),
        (making.scalar_out, False, None),
        (making.doubled_rows, False, "axis 0 is no batch: y did not follow it"),
        (making.rows_that_meet, False, "axis 0 is no batch: rows of y depend on each other"),
        (row_sums_over_time, False, "axis 0 is no batch: rows of y depend on each other"),
        (flattened, False, "could not be run at batch 2"),
    ],
)
def test_whether_axis_0_is_the_batch_is_found_out_by_running(
    import_onnx: Import, make: Callable[[], onnx.ModelProto], batched: bool, note: str | None
) -> None:
    made = import_onnx(make())
    assert made.format == "onnx"
    assert made.signature is not None
    assert made.signature.batched is batched
    assert [text.startswith(str(note)) for text in made.metadata["notes"]] == ([] if note is None else [True])


@pytest.mark.parametrize(("make", "stated"), [(making.rows_that_meet, True), (making.batched_add, False)])
def test_what_the_spec_states_about_the_batch_is_believed(
    import_onnx: Import, make: Callable[[], onnx.ModelProto], stated: bool
) -> None:
    signature = import_onnx(make(), batched=stated).signature
    assert signature is not None
    assert signature.batched is stated


def test_a_batch_that_cannot_be_is_refused(import_onnx: Import) -> None:
    with pytest.raises(CheckFailed, match="axis 0 is not dynamic everywhere") as raised:
        import_onnx(making.unbatched_add(), batched=True)
    assert "x: FP32[3]" in str(raised.value.found)
    assert any(line.startswith("log: ") for line in raised.value.details)


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ("FP32[-1,2]", ("batch", "seq", 2)),
        ("FP32[seq,2]", ("batch", "seq", 2)),
        ("FP32[tokens,2]", ("batch", "tokens", 2)),
        ("FP32[128,2]", ("batch", 128, 2)),
        ("TYPE_FP32[-1,2]", ("batch", "seq", 2)),
    ],
)
def test_the_spec_refines_dynamic_axes(import_onnx: Import, stated: str, shape: tuple[Any, ...]) -> None:
    made = import_onnx(making.dynamic_text(), inputs={"x": {"type": stated, "optional": True, "ragged": True}})
    assert made.signature is not None
    (tensor,) = made.signature.inputs
    assert (tensor.shape, tensor.optional, tensor.ragged) == (shape, True, True)


@pytest.mark.parametrize(
    ("make", "which", "name", "stated", "message"),
    [
        (making.batched_add, "inputs", "x", "INT64[4]", "contradicts the model about 'x'"),
        (making.batched_add, "inputs", "x", "FP32[5]", "contradicts the model about 'x'"),
        (making.batched_add, "inputs", "x", "FP32[-1]", "contradicts the model about 'x'"),
        (making.batched_add, "inputs", "x", "FP32[N,4]", "contradicts the model about 'x'"),
        (making.batched_add, "inputs", "x", "FP32[]", "contradicts the model about 'x'"),
        (making.unbatched_add, "outputs", "y", "FP32[4]", "contradicts the model about 'y'"),
        (making.batched_add, "inputs", "X", "FP32[4]", "no input 'X'"),
        (making.batched_add, "outputs", "z", "FP32[4]", "no output 'z'"),
    ],
)
def test_a_contradiction_is_refused(
    import_onnx: Import, make: Callable[[], onnx.ModelProto], which: str, name: str, stated: str, message: str
) -> None:
    with pytest.raises(CheckFailed, match=message):
        import_onnx(make(), **{which: {name: {"type": stated}}})


def test_external_data_comes_along(run: Run, store: LocalStore, tmp_path: Path) -> None:
    path = making.save_external(tmp_path / "src" / "net.onnx")
    sources = {"model.onnx": path, "weights.bin": path.with_name("weights.bin")}
    made = run("import-onnx", onnx_config(), sources=sources)
    assert sorted(made.files) == ["model.onnx", "weights.bin"]
    assert made.metadata["external"] == ["weights.bin"]
    with pytest.raises(CheckFailed, match="external data is missing") as raised:
        run("import-onnx", onnx_config(), sources={"model.onnx": path})
    assert raised.value.found == "weights.bin"


def test_truncated_external_data_is_refused_with_its_sizes(run: Run, tmp_path: Path) -> None:
    path = making.save_external(tmp_path / "src" / "net.onnx")
    data = path.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(CheckFailed, match="external data is truncated") as raised:
        run("import-onnx", onnx_config(), sources={"model.onnx": path, "weights.bin": data})
    assert raised.value.found == "100 bytes"
    assert "at least 1024 bytes" in str(raised.value.expected)


def test_functions_that_the_model_defines_run(import_onnx: Import) -> None:
    body = [helper.make_node("Neg", ["a"], ["b"])]
    made = making.model(
        [helper.make_node("Minus", ["x"], ["y"], domain="my.company")],
        [making.value("x", ["N", 4])],
        [making.value("y", ["N", 4])],
    )
    made.opset_import.append(helper.make_opsetid("my.company", 1))
    made.functions.append(
        helper.make_function("my.company", "Minus", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    signature = import_onnx(made).signature
    assert signature is not None
    assert signature.batched is True


def test_a_model_that_onnx_runtime_refuses_is_refused_in_its_words(import_onnx: Import) -> None:
    broken = making.model(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])], [making.value("x", [1])], [making.value("y", [1])]
    )
    with pytest.raises(CheckFailed, match=r"cannot load model\.onnx") as raised:
        import_onnx(broken)
    assert "NoSuchOperator" in str(raised.value.found)


def test_equal_sources_give_equal_artefacts(import_onnx: Import) -> None:
    assert import_onnx(making.batched_add()).digest == import_onnx(making.batched_add()).digest


def test_an_axis_of_size_0_becomes_dynamic_as_triton_has_no_such_size(
    import_onnx: Import, store: LocalStore, tmp_path: Path
) -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], noop_with_empty_axes=1)
    inputs = [making.value("x", [2, 3]), making.value("axes", [0], making.INT64)]
    made = import_onnx(making.model([node], inputs, [making.value("y", [2, 3])]))
    assert made.signature is not None
    assert [str(tensor) for tensor in made.signature.inputs] == ["x: FP32[2,3]", "axes: INT64[?axes.0]"]
    assert made.signature.batched is False
    assert made.metadata["notes"] == ["an axis of size 0 became dynamic, as Triton has no such size: axes"]
    store.place(made, "model.onnx", tmp_path / "served.onnx")
    served = onnx.load(tmp_path / "served.onnx")
    assert not served.graph.input[1].type.tensor_type.shape.dim[0].HasField("dim_value")
    assert served.graph.node == [node]


def test_an_output_that_is_always_empty_is_refused(import_onnx: Import) -> None:
    node = helper.make_node("Shape", ["x"], ["y"], start=2, end=1)
    made = making.model([node], [making.value("x", [2, 3])], [making.value("y", [0], making.INT64)])
    with pytest.raises(CheckFailed, match="'y' has no elements whatever is asked"):
        import_onnx(made)


def test_nothing_of_a_file_without_such_axes_is_changed(import_onnx: Import, store: LocalStore, tmp_path: Path) -> None:
    made = making.batched_add()
    store.place(import_onnx(made), "model.onnx", tmp_path / "served.onnx")
    assert (tmp_path / "served.onnx").read_bytes() == made.SerializeToString()
