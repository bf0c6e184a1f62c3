"""Small ONNX models for tests, each the shortest one that shows its property."""

from __future__ import annotations

import os
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


WIDTH, HEADS = 64, 4


def encoder_block(seed: int = 0) -> onnx.ModelProto:
    """One encoder block over ``[batch, seq, 64]``: attention with four heads, and two dense layers."""
    rng = np.random.default_rng(seed)
    weights = {
        f"w_{name}": (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        for name, shape in (
            ("q", (WIDTH, WIDTH)),
            ("k", (WIDTH, WIDTH)),
            ("v", (WIDTH, WIDTH)),
            ("o", (WIDTH, WIDTH)),
            ("up", (WIDTH, 4 * WIDTH)),
            ("down", (4 * WIDTH, WIDTH)),
        )
    }
    weights.update(
        split=np.int64([0, 0, HEADS, WIDTH // HEADS]),
        merge=np.int64([0, 0, WIDTH]),
        scale=np.float32(np.sqrt(WIDTH / HEADS)),
        gamma=np.ones(WIDTH, np.float32),
        beta=np.zeros(WIDTH, np.float32),
    )
    nodes = []
    for name in "qkv":
        nodes += [
            helper.make_node("MatMul", ["x", f"w_{name}"], [name], name=f"project_{name}"),
            helper.make_node("Reshape", [name, "split"], [f"{name}_split"]),
            helper.make_node(
                "Transpose", [f"{name}_split"], [f"{name}h"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
            ),
        ]
    nodes += [
        helper.make_node("MatMul", ["qh", "kh"], ["raw"], name="scores"),
        helper.make_node("Div", ["raw", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["share"], axis=-1),
        helper.make_node("MatMul", ["share", "vh"], ["mixed"], name="mix"),
        helper.make_node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "merge"], ["merged"]),
        helper.make_node("MatMul", ["merged", "w_o"], ["attended"], name="project_o"),
        helper.make_node("Add", ["x", "attended"], ["first"]),
        helper.make_node("LayerNormalization", ["first", "gamma", "beta"], ["normal"]),
        helper.make_node("MatMul", ["normal", "w_up"], ["wide"], name="up"),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "w_down"], ["narrow"], name="down"),
        helper.make_node("Add", ["normal", "narrow"], ["y"]),
    ]
    shape = ["batch", "seq", WIDTH]
    tensors = [constant(name, value) for name, value in weights.items()]
    return model(nodes, [value("x", shape)], [value("y", shape)], tensors)


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


def save_table(path: Path, rows: int, seed: int = 0) -> Path:
    """A Gather from a table of ``rows`` times 1 KiB, all of it in external data beside the model, which is given.

    The data is written in pieces and looks ten seconds old: old enough for its digest to be remembered.
    """
    table = TensorProto(name="table", data_type=FLOAT, dims=[rows, 256], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", f"{path.stem}.bin"), ("offset", "0"), ("length", str(rows << 10))):
        table.external_data.add(key=key, value=text)
    node = helper.make_node("Gather", ["table", "ids"], ["rows"])
    made = model([node], [value("ids", ["N", 1], INT64)], [value("rows", ["N", 1, 256])], [table])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(made, path)
    data = path.with_suffix(".bin")
    data.unlink(missing_ok=True)  # a linked one is the store's
    random = np.random.default_rng(seed)
    with data.open("wb") as stream:
        for first in range(0, rows, 1 << 14):
            random.random((min(1 << 14, rows - first), 256), np.float32).tofile(stream)
    moment = data.stat().st_mtime - 10
    os.utime(data, (moment, moment))
    return data
