"""Small ONNX models for tests, each the shortest one that shows its property."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
FLOAT, INT64, STRING, FLOAT16 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.FLOAT16


def value(name: str, shape: Shape | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="tests")


def constant(name: str, array: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def batched_add(addend: float = 1.0, axis: str = "N") -> onnx.ModelProto:
    """y = x + addend over ``[N, 4]``."""
    node = helper.make_node("Add", ["x", "c"], ["y"])
    return model([node], [value("x", [axis, 4])], [value("y", [axis, 4])], [constant("c", np.float32([addend] * 4))])


def unbatched_add() -> onnx.ModelProto:
    """y = x + x over ``[3]``."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", [3])], [value("y", [3])])


def dynamic_text() -> onnx.ModelProto:
    """y = x + x over ``[batch, seq, 2]``."""
    dims = ["batch", "seq", 2]
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", dims)], [value("y", dims)])


def two_inputs() -> onnx.ModelProto:
    """y = a + b over ``[N, 2]``."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return model([node], [value("a", ["N", 2]), value("b", ["N", 2])], [value("y", ["N", 2])])


def text_in_text_out() -> onnx.ModelProto:
    """The strings that it is given, ``[N, 1]``."""
    node = helper.make_node("Identity", ["TEXT"], ["SAME"])
    return model([node], [value("TEXT", ["N", 1], STRING)], [value("SAME", ["N", 1], STRING)])


def scalar_out() -> onnx.ModelProto:
    """The sum of ``[3]`` as a scalar."""
    node = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0)
    return model([node], [value("x", [3])], [value("total", [])])


def doubled_rows() -> onnx.ModelProto:
    """Axis 0 is dynamic, but the output has twice as many rows: no batch."""
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    return model([node], [value("x", ["N", 2])], [value("y", ["M", 2])])


def rows_that_meet() -> onnx.ModelProto:
    """Softmax over axis 0: the output follows the axis, but rows depend on each other, so it is no batch."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    return model([node], [value("x", ["N", 4])], [value("y", ["N", 4])])


def with_dead_weight() -> onnx.ModelProto:
    """Two identities and an addition, of which simplification leaves the addition."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    return model(nodes, [value("x", ["N", 4])], [value("y", ["N", 4])], [constant("c", np.ones(4, np.float32))])


def save(path: Path, made: onnx.ModelProto) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString(deterministic=True))
    return path


def save_external(path: Path, data: str = "weights.bin") -> Path:
    """``y = x + c`` with ``c`` (1 kB) in a file of its own beside the model."""
    node = helper.make_node("Add", ["x", "c"], ["y"])
    weights = [constant("c", np.arange(256, dtype=np.float32))]
    made = model([node], [value("x", ["N", 256])], [value("y", ["N", 256])], weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path, save_as_external_data=True, location=data, size_threshold=16)
    return path
