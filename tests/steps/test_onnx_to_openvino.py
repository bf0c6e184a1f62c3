"""An ONNX model becomes OpenVINO IR with the same names and axes, or one clear error says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, golden_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import CheckFailed

pytest.importorskip("openvino")

Import = Callable[..., Artifact]


def config(**given: Any) -> dict[str, Any]:
    return {"compress": "none", "shapes": {}, "batching": "none", **given}


def two_layers(width: int = 256) -> onnx.ModelProto:
    """Two matrix products with a ReLU between them: enough for BF16 to show."""
    weight = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32) / np.sqrt(width)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    shape = ["batch", width]
    weights = [making.constant("w", weight.astype(np.float32))]
    return making.model(nodes, [making.value("x", shape)], [making.value("y", shape)], weights)


@pytest.mark.parametrize(
    ("make", "inputs", "outputs"),
    [
        (making.batched_add, ["x: FP32[N,4]"], ["y: FP32[N,4]"]),
        (making.dynamic_text, ["x: FP32[batch,seq,2]"], ["y: FP32[batch,seq,2]"]),
        (making.two_inputs, ["a: FP32[N,2]", "b: FP32[N,2]"], ["y: FP32[N,2]"]),
        (making.unbatched_add, ["x: FP32[3]"], ["y: FP32[3]"]),
    ],
)
def test_names_and_dynamic_axes_stay(
    run: Run, import_onnx: Import, make: Callable[[], onnx.ModelProto], inputs: list[str], outputs: list[str]
) -> None:
    made = run("onnx-to-openvino", config(), inputs={"model": import_onnx(make())})
    assert made.format == "openvino"
    assert sorted(made.files) == ["model.bin", "model.xml"]
    assert made.signature is not None
    assert [str(tensor) for tensor in made.signature.inputs] == inputs
    assert [str(tensor) for tensor in made.signature.outputs] == outputs
    assert made.signature.batched is False
    assert str(made.metadata["made_by"]).startswith("openvino 20")


def test_parity_holds_for_every_batch_and_length(run: Run, import_onnx: Import) -> None:
    source = import_onnx(two_layers())
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    made = run("onnx-to-openvino", config(), inputs={"model": source})
    parity = run("parity", {"format": "openvino", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert parity.metadata["comparisons"] == 3  # in FP32, also on processors that would take BF16
    assert parity.metadata["max_abs"] < 1e-5


def test_fp16_halves_the_weights_and_keeps_the_types_of_inputs_and_outputs(run: Run, import_onnx: Import) -> None:
    source = import_onnx(two_layers())
    plain, half = (
        run("onnx-to-openvino", config(compress=compress), inputs={"model": source}) for compress in ("none", "fp16")
    )
    assert half.files["model.bin"].size * 2 == plain.files["model.bin"].size
    assert half.signature == plain.signature
    assert "FP16" in half.metadata["made_by"]
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    tolerance = {"abs": 1e-2, "rel": 1e-2}
    parity = run("parity", {"format": "openvino", "tolerance": tolerance}, inputs={"model": half, "golden": golden})
    assert 0 < parity.metadata["max_abs"] < 1e-2


def test_asked_sizes_are_fixed(run: Run, import_onnx: Import) -> None:
    made = run("onnx-to-openvino", config(shapes={"seq": 16}), inputs={"model": import_onnx(making.dynamic_text())})
    assert made.signature is not None
    assert [str(tensor) for tensor in made.signature.inputs] == ["x: FP32[batch,16,2]"]
    assert [str(tensor) for tensor in made.signature.outputs] == ["y: FP32[batch,16,2]"]
    assert made.metadata["fixed_axes"] == {"seq": 16}


@pytest.mark.parametrize("name", ["batch", "N"])
def test_a_fixed_batch_makes_the_model_unbatched(run: Run, import_onnx: Import, name: str) -> None:
    made = run(
        "onnx-to-openvino",
        config(shapes={name: 4}, batching="padded" if name == "N" else "none"),
        inputs={"model": import_onnx(making.two_inputs())},
    )
    assert made.signature is not None
    assert [str(tensor) for tensor in made.signature.outputs] == ["y: FP32[4,2]"]
    assert made.signature.batched is False


def test_parity_takes_the_cases_that_a_fixed_shape_can_take(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.dynamic_text())
    golden = run("golden", golden_config(format="onnx", axes={"seq": [2, 16]}), inputs={"model": source})
    made = run("onnx-to-openvino", config(shapes={"seq": 16, "batch": 3}), inputs={"model": source})
    parity = run("parity", {"format": "openvino", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert parity.metadata["comparisons"] == 1
    other = run("onnx-to-openvino", config(shapes={"seq": 5}), inputs={"model": source})
    with pytest.raises(CheckFailed, match="no golden case has the shape that the artefact takes") as raised:
        run("parity", {"format": "openvino", "tolerance": None}, inputs={"model": other, "golden": golden})
    assert "golden.axes" in str(raised.value.hint)


def test_padded_batches_keep_the_batch(run: Run, import_onnx: Import) -> None:
    made = run("onnx-to-openvino", config(batching="padded"), inputs={"model": import_onnx(making.two_inputs())})
    assert made.signature is not None
    assert made.signature.batched is True
    with pytest.raises(CheckFailed, match="needs fixed sizes of all axes but the batch") as raised:
        run("onnx-to-openvino", config(batching="padded"), inputs={"model": import_onnx(making.dynamic_text())})
    assert raised.value.found == "dynamic: seq"


def test_equal_models_give_equal_files(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.encoder_block())
    first, second = (run("onnx-to-openvino", config(), inputs={"model": source}) for _ in range(2))
    assert first.digest == second.digest
    golden = run("golden", golden_config(format="onnx", axes={"seq": [3, 12]}), inputs={"model": source})
    run("parity", {"format": "openvino", "tolerance": None}, inputs={"model": second, "golden": golden})


def custom() -> onnx.ModelProto:
    node = helper.make_node("StringNormalizer", ["x"], ["s"])
    count = helper.make_node("Shape", ["s"], ["y"])
    return making.model(
        [node, count, helper.make_node("Identity", ["z"], ["w"])],
        [making.value("z", [2])],
        [making.value("w", [2]), making.value("y", [1], making.INT64)],
        [helper.make_tensor("x", making.STRING, [2], [b"a", b"b"])],
    )


def test_operators_that_openvino_lacks_are_named(run: Run, import_onnx: Import) -> None:
    with pytest.raises(CheckFailed, match="lacks operators that the model uses") as raised:
        run("onnx-to-openvino", config(), inputs={"model": import_onnx(custom())})
    assert "StringNormalizer" in str(raised.value.found)
    assert "onnxruntime" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (making.text_in_text_out, {}, "cannot carry BYTES"),
        (making.scalar_out, {}, "carries no scalars"),
        (making.batched_add, {"shapes": {"width": 3}}, "fixes 'width', which is no dynamic axis"),
        (making.unbatched_add, {"shapes": {"batch": 3}}, "fixes 'batch', which is no dynamic axis"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, import_onnx: Import, make: Callable[[], onnx.ModelProto], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckFailed, match=message):
        run("onnx-to-openvino", config(**given), inputs={"model": import_onnx(make())})
