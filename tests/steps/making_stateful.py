"""Small ONNX graphs that remember, with what they compute written out in NumPy."""

from __future__ import annotations

import making_onnx as making
import numpy as np
import onnx
from onnx import helper

SEQUENCE = {
    "states": {"h": {"output": "h_after"}},
    "context": {"x": 2},
    "constants": {"rate": 3},
    "controls": {},
    "requests": 4,
}


def remembering(batch: str | int = "N", *, inside: bool = False) -> onnx.ModelProto:
    """``h' = h / 2 + rate * sum(x)`` with h ``[2, N, 3]``, and y ``[N, 1]`` the sum of h'.

    ``inside`` sums x within both branches of an ``If``, as an exporter leaves it.
    """
    total = helper.make_node("ReduceSum", ["x", "axis1"], ["total"], keepdims=1)
    nodes = [total]
    if inside:
        branches = {
            name: helper.make_graph(
                [helper.make_node("ReduceSum", ["x", "axis1"], [f"{name}_total"], keepdims=1)],
                name,
                [],
                [making.value(f"{name}_total", [batch, 1])],
            )
            for name in ("then_branch", "else_branch")
        }
        nodes = [
            helper.make_node("Equal", ["rate", "three"], ["is_three"]),
            helper.make_node("If", ["is_three"], ["total"], **branches),
        ]
    nodes += [
        helper.make_node("Cast", ["rate"], ["factor"], to=making.FLOAT),
        helper.make_node("Mul", ["total", "factor"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "axis0"], ["row"]),
        helper.make_node("Mul", ["h", "half"], ["faded"]),
        helper.make_node("Add", ["faded", "row"], ["h_after"]),
        helper.make_node("ReduceSum", ["h_after", "axes02"], ["sums"], keepdims=0),
        helper.make_node("Unsqueeze", ["sums", "axis1"], ["y"]),
    ]
    weights = [
        making.constant("axis0", np.int64([0])),
        making.constant("axis1", np.int64([1])),
        making.constant("axes02", np.int64([0, 2])),
        making.constant("half", np.float32(0.5)),
        making.constant("three", np.int64(3)),
    ]
    return making.model(
        nodes,
        [
            making.value("x", [batch, None if isinstance(batch, str) else 6]),
            making.value("h", [2, batch, 3]),
            making.value("rate", [], making.INT64),
        ],
        [making.value("y", [batch, 1]), making.value("h_after", [None, None, None])],
        weights,
    )


def answers(chunks: np.ndarray, *, context: int = 2, rate: float = 3) -> np.ndarray:
    """What :func:`remembering` answers to ``[requests, N, samples]``, with each chunk behind the end of the last."""
    before = np.zeros((*chunks.shape[1:-1], context))
    memory = np.zeros(chunks.shape[1:-1])
    found = []
    for chunk in chunks.astype(np.float64):
        whole = np.concatenate([before, chunk], axis=-1)
        before = whole[..., whole.shape[-1] - context :]
        memory = memory / 2 + rate * whole.sum(axis=-1)
        found.append(6 * memory)
    return np.stack(found)[..., None]


def crossing() -> onnx.ModelProto:
    """Two states, ``a`` with the next value ``z`` and ``b`` with ``c``: sorted by name they would be swapped."""
    return making.model(
        [
            helper.make_node("Add", ["a", "x"], ["z"]),
            helper.make_node("Mul", ["b", "x"], ["scaled"]),
            helper.make_node("Add", ["scaled", "x"], ["c"]),
            helper.make_node("Sub", ["z", "c"], ["y"]),
        ],
        [making.value(name, ["N", 2]) for name in ("x", "a", "b")],
        [making.value(name, ["N", 2]) for name in ("y", "z", "c")],
    )


def sharing() -> onnx.ModelProto:
    """A state that all rows of a batch share: their sum. They cannot be sequences of their own."""
    return making.model(
        [
            helper.make_node("ReduceSum", ["x", "axis0"], ["all"], keepdims=1),
            helper.make_node("Add", ["h", "all"], ["h_after"]),
            helper.make_node("Identity", ["h_after"], ["y"]),
        ],
        [making.value("x", ["N", 2]), making.value("h", ["N", 2])],
        [making.value("y", ["N", 2]), making.value("h_after", ["N", 2])],
        [making.constant("axis0", np.int64([0]))],
    )


def controlled() -> onnx.ModelProto:
    """``h' = (1 - START) * h + x``, and y the same: the graph itself forgets, told of a start."""
    return making.model(
        [
            helper.make_node("Sub", ["one", "START"], ["kept"]),
            helper.make_node("Mul", ["kept", "h"], ["old"]),
            helper.make_node("Add", ["old", "x"], ["h_after"]),
            helper.make_node("Identity", ["h_after"], ["y"]),
        ],
        [making.value("x", ["N", 1]), making.value("h", ["N", 1]), making.value("START", ["N", 1])],
        [making.value("y", ["N", 1]), making.value("h_after", ["N", 1])],
        [making.constant("one", np.float32(1))],
    )
