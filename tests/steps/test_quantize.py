"""Dynamic INT8 makes weights smaller, says what it converted, and fails where it converted nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, golden_config, onnx_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed, InternalError
from tritonforge.sources.onnx_file import nodes_of
from tritonforge.steps.registry import step

Import = Callable[..., Artifact]


def config(**given: Any) -> dict[str, Any]:
    return {"mode": "dynamic", "per_channel": True, "reduce_range": True, "exclude": [], **given}


def operators(store: LocalStore, made: Artifact) -> list[str]:
    model = onnx.load(store.blob(made.files["model.onnx"].sha256), format="protobuf", load_external_data=False)
    return [node.op_type for node in nodes_of(model)]


def compared(run: Run, source: Artifact, made: Artifact) -> Artifact:
    golden = run("golden", golden_config(format="onnx", axes={"seq": [3, 12]}), inputs={"model": source})
    tolerance = {"cosine": 0.98}
    return run("parity", {"format": "onnx", "tolerance": tolerance}, inputs={"model": made, "golden": golden})


def test_a_transformer_keeps_its_direction_with_a_quarter_of_the_weights(
    run: Run, import_onnx: Import, store: LocalStore
) -> None:
    source = import_onnx(making.encoder_block())
    made = run("quantize", config(), inputs={"model": source})
    assert made.signature == source.signature
    assert operators(store, made).count("MatMulInteger") == 6
    facts = made.metadata["quantized"]
    assert facts["nodes"] == {"converted": 6, "left": 2}  # scores and their mix multiply computed values
    assert facts["weight_bytes"]["after"] < 0.3 * facts["weight_bytes"]["before"]
    assert set(made.metadata["domains"]) == {""}
    assert made.metadata["made_by"].endswith("(dynamic INT8)")
    assert compared(run, source, made).metadata["cosine"] > 0.999


def test_excluded_nodes_stay(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.encoder_block())
    made = run("quantize", config(exclude=["up", "down"]), inputs={"model": source})
    assert made.metadata["quantized"]["nodes"] == {"converted": 4, "left": 4}
    with pytest.raises(CheckFailed, match="names 'upp', which is no node") as raised:
        run("quantize", config(exclude=["upp"]), inputs={"model": source})
    assert "'up'" in str(raised.value.hint)


def test_stale_shapes_of_an_exporter_do_not_stop_it(run: Run, import_onnx: Import) -> None:
    model = making.encoder_block()
    model.graph.value_info.append(making.value("attended", ["batch", "seq", making.WIDTH]))
    model.graph.value_info.append(making.value("wide", ["other", "seq", 4 * making.WIDTH]))
    source = import_onnx(model)
    assert compared(run, source, run("quantize", config(), inputs={"model": source})).metadata["cosine"] > 0.999


def gemm() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    weights = [
        making.constant("w", rng.standard_normal((8, 32)).astype(np.float32)),
        making.constant("b", rng.standard_normal(8).astype(np.float32)),
    ]
    return making.model([node], [making.value("x", ["N", 32])], [making.value("y", ["N", 8])], weights)


def test_gemm_is_converted_too(run: Run, import_onnx: Import, store: LocalStore) -> None:
    source = import_onnx(gemm())
    made = run("quantize", config(), inputs={"model": source})
    assert "MatMulInteger" in operators(store, made)
    compared(run, source, made)


def convolution() -> onnx.ModelProto:
    weight = np.ones((4, 3, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    shape: list[Any] = ["N", 3, 8, 8]
    return making.model(
        [node], [making.value("x", shape)], [making.value("y", ["N", 4, 8, 8])], [making.constant("w", weight)]
    )


def two_computed() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "z"], ["y"])
    shape = ["N", 3, 3]
    return making.model([node], [making.value("x", shape), making.value("z", shape)], [making.value("y", shape)])


@pytest.mark.parametrize(
    ("make", "found", "reason"),
    [
        (convolution, "1 Conv", "convolutions want static quantisation"),
        (two_computed, "1 MatMul", "multiply computed values"),
        (making.batched_add, "1 Add", None),
    ],
)
def test_what_changes_nothing_is_refused(
    run: Run, import_onnx: Import, make: Callable[[], onnx.ModelProto], found: str, reason: str | None
) -> None:
    with pytest.raises(CheckFailed, match="changed nothing: the model has no MatMul or Gemm") as raised:
        run("quantize", config(), inputs={"model": import_onnx(make())})
    assert raised.value.found == found
    assert any(reason in text for text in raised.value.details) if reason else True


def test_a_collapse_is_a_parity_failure(run: Run, import_onnx: Import, store: LocalStore, tmp_path: Path) -> None:
    source = import_onnx(making.encoder_block())
    made = run("quantize", config(), inputs={"model": source})
    broken = onnx.load(store.blob(made.files["model.onnx"].sha256), format="protobuf")
    for tensor in broken.graph.initializer:
        if tensor.name.endswith("_scale"):
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.roll(values, 1) * np.float32(-3), tensor.name))
    collapsed = import_onnx(broken)
    with pytest.raises(CheckFailed, match="does not compute what its source computes") as raised:
        compared(run, source, collapsed)
    assert "cosine" in str(raised.value.found)


def test_external_data_stays_external(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "src" / "model.onnx"
    path.parent.mkdir()
    onnx.save(making.encoder_block(), path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    sources = {"model.onnx": path, "weights.bin": path.with_name("weights.bin")}
    source = run("import-onnx", onnx_config(), sources=sources)
    made = run("quantize", config(), inputs={"model": source})
    assert sorted(made.files) == ["model.onnx", "model.onnx.data"]
    assert made.metadata["external"] == ["model.onnx.data"]
    compared(run, source, made)


def test_equal_models_give_equal_files(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.encoder_block())
    assert run("quantize", config(), inputs={"model": source}).digest == (
        run("quantize", config(), inputs={"model": source}).digest
    )


def test_each_mode_has_a_module_of_its_own() -> None:
    assert "onnxslim" in step("quantize").needs(config(), 10).tools
    with pytest.raises(InternalError, match="no mode 'static'"):
        step("quantize").needs(config(mode="static"), 10)
