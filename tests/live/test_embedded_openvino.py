"""The stand-in for the OpenVINO backend behaves as the native backend does."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from tritonforge.errors import CheckFailed
from tritonforge.triton import Client

pytestmark = pytest.mark.live

TENSORS = (
    'input { name: "x" data_type: TYPE_FP32 dims: [3] } output { name: "y" data_type: TYPE_FP32 dims: [3] }\n'
    "instance_group { count: 1 kind: KIND_CPU }\n"
)


def ir(tmp_path: Any, shape: list[int], layout: str | None = None) -> dict[str, bytes]:
    """``y = x + 1`` as ``model.xml`` and ``model.bin``."""
    ov = pytest.importorskip("openvino", reason="openvino is not installed")
    from openvino import opset8

    x = opset8.parameter(shape, np.float32, name="x")
    x.output(0).set_names({"x"})
    y = opset8.add(x, opset8.constant(np.float32([1])))
    y.output(0).set_names({"y"})
    model = ov.Model([y], [x], "plus_one")
    if layout is not None:
        model.inputs[0].node.set_layout(ov.Layout(layout))
        model.outputs[0].node.set_layout(ov.Layout(layout))
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    return {name: (tmp_path / name).read_bytes() for name in ("model.xml", "model.bin")}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is not None, reason="openvino is installed")
def test_without_openvino_the_package_is_named(client: Client, write: Any) -> None:
    write("no_openvino", f'backend: "openvino" {TENSORS}', {"model.xml": "x"})
    with pytest.raises(CheckFailed, match="needs the package openvino"):
        client.load("no_openvino")


@pytest.mark.parametrize("shape", [[-1, 3], [1, 3]])
def test_only_full_batches_run(client: Client, write: Any, tmp_path: Any, shape: list[int]) -> None:
    name = f"ov_{abs(shape[0])}_{shape[0] > 0}"
    write(name, f'backend: "openvino" max_batch_size: 4 {TENSORS}', ir(tmp_path, shape))
    client.load(name)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert client.infer(name, {"x": x})["y"].tolist() == (x + 1).tolist()
    with pytest.raises(CheckFailed, match="expected requests with batch size '4', got '2'"):
        client.infer(name, {"x": x[:2]})


def test_batches_are_filled_up_where_that_is_asked_for(client: Client, write: Any, tmp_path: Any) -> None:
    padding = 'parameters { key: "ENABLE_BATCH_PADDING" value { string_value: "YES" } }'
    write("ov_padded", f'backend: "openvino" max_batch_size: 4 {TENSORS}{padding}', ir(tmp_path, [-1, 3]))
    client.load("ov_padded")
    for rows in (1, 3, 4):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        assert client.infer("ov_padded", {"x": x})["y"].tolist() == (x + 1).tolist()


def test_a_dynamic_batch_axis_runs_at_any_size_without_triton_batching(
    client: Client, write: Any, tmp_path: Any
) -> None:
    text = f'backend: "openvino" max_batch_size: 0 {TENSORS}'.replace("dims: [3]", "dims: [-1, 3]")
    write("ov_axis", text, ir(tmp_path, [-1, 3]))
    client.load("ov_axis")
    for rows in (1, 5):
        x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
        assert client.infer("ov_axis", {"x": x})["y"].tolist() == (x + 1).tolist()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("HINT_BF16", "maybe", "'HINT_BF16' to be YES"), ("PERFORMANCE_HINT", "fast", "LATENCY/THROUGHPUT")],
)
def test_a_wrong_parameter_is_refused(
    client: Client, write: Any, tmp_path: Any, key: str, value: str, message: str
) -> None:
    extra = f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    write(f"ov_wrong_{key}", f'backend: "openvino" max_batch_size: 4 {TENSORS}{extra}', ir(tmp_path, [-1, 3]))
    with pytest.raises(CheckFailed, match=message):
        client.load(f"ov_wrong_{key}")


def test_parameters_are_taken(client: Client, write: Any, tmp_path: Any) -> None:
    names = {"NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "1"}
    extra = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in names.items())
    write("ov_parameters", f'backend: "openvino" max_batch_size: 4 {TENSORS}{extra}', ir(tmp_path, [-1, 3]))
    client.load("ov_parameters")


def test_completion_names_the_batch_only_by_layout(client: Client, write: Any, tmp_path: Any) -> None:
    write("ov_plain", 'backend: "openvino"', ir(tmp_path, [-1, 3]))
    client.load("ov_plain")
    assert client.model_config("ov_plain").max_batch_size == 0
    assert list(client.model_config("ov_plain").input[0].dims) == [-1, 3]


def test_a_wrong_type_is_refused(client: Client, write: Any, tmp_path: Any) -> None:
    text = f'backend: "openvino" max_batch_size: 4 {TENSORS}'.replace("TYPE_FP32", "TYPE_INT8", 1)
    write("ov_type", text, ir(tmp_path, [-1, 3]))
    with pytest.raises(CheckFailed, match="configuration expects datatype TYPE_INT8"):
        client.load("ov_type")
