"""A spec with many small ONNX models, no two of them alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_spec(folder: Path, count: int) -> Path:
    """``forge.yaml`` and ``count`` models of two dense layers over ``[N, 16]``, each with weights of its own.

    Model 7 is the same in every such spec: what one of them built is in the store for the others.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    lines = ["apiVersion: tritonforge/v1", "name: many", "models:"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16]) for name in ("x", "y")]
    for number in range(count):
        random = np.random.default_rng(number)
        weights = [
            numpy_helper.from_array(random.standard_normal(shape).astype(np.float32) / 4, name)
            for name, shape in (("w1", (16, 32)), ("b1", (32,)), ("w2", (32, 16)))
        ]
        nodes = [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Add", ["h", "b1"], ["s"]),
            helper.make_node("Relu", ["s"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "small", values[:1], values[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save_model(model, folder / f"m{number:04}.onnx")
        lines.append(f"  m{number:04}: {{source: m{number:04}.onnx}}")
    spec = folder / "forge.yaml"
    spec.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return spec
