"""How many floating-point operations an ONNX operator takes.

Counted are contractions: convolutions, matrix products, recurrent cells and attention; a multiplication with its
addition are two operations, and biases, activations and normalizations none. That is how
``torch.utils.flop_counter`` counts and what papers state as 2 x MACs. Shapes are those of the ONNX operator schemas
and of ONNX Runtime's ``docs/ContribOperators.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

Shape = tuple[int, ...]


class UnknownShape(LookupError):
    """A shape that the count needs is not known."""


class Call:
    """One node with the shapes of what it reads and makes."""

    __slots__ = ("_shapes", "node")

    def __init__(self, node: Any, shapes: Mapping[str, Shape]) -> None:
        self.node = node
        self._shapes = shapes

    def _of(self, names: Sequence[str], index: int, rank: int) -> Shape:
        shape = self._shapes.get(names[index]) if index < len(names) and names[index] else None
        if shape is None or len(shape) < rank:
            raise UnknownShape(f"{self.node.op_type}: value {index}")
        return shape

    def input(self, index: int, rank: int = 1) -> Shape:
        return self._of(self.node.input, index, rank)

    def output(self, index: int = 0, rank: int = 1) -> Shape:
        return self._of(self.node.output, index, rank)

    def attribute(self, name: str, default: int) -> int:
        return next((int(item.i) for item in self.node.attribute if item.name == name), default)

    def text(self, name: str) -> str:
        return next((bytes(item.s).decode("utf-8", "replace") for item in self.node.attribute if item.name == name), "")


Rule = Callable[[Call], int]


def _convolution(weights: int) -> Rule:
    """Each output element is a sum over one kernel: ``weights`` are [out, in / groups, *kernel]."""
    return lambda call: 2 * prod(call.output(0, 2)) * prod(call.input(weights, 2)[1:])


def _transposed_convolution(call: Call) -> int:
    """Each input element is spread over one kernel: weights are [in, out / groups, *kernel]."""
    return 2 * prod(call.input(0, 2)) * prod(call.input(1, 2)[1:])


def _product(left: int) -> Rule:
    """``[…, m, k] x […, k, n]``: every output element is a sum over ``k``."""
    return lambda call: 2 * prod(call.output(0, 0)) * call.input(left)[-1]


def _fused_product(call: Call) -> int:
    axis = -2 if call.attribute("transA", 0) else -1
    return 2 * prod(call.output(0, 0)) * call.input(0, 2)[axis]


def _gemm(call: Call) -> int:
    left = call.input(0, 2)
    return 2 * prod(call.output(0, 2)) * left[0 if call.attribute("transA", 0) else 1]


def _narrow_product(call: Call) -> int:
    """MatMulNBits and its kin: weights are packed, their width is the attribute N."""
    wide = call.attribute("N", 0)
    if wide <= 0:
        raise UnknownShape("N")
    return 2 * prod(call.input(0)) * wide


def _recurrent(call: Call) -> int:
    """X is [seq, batch, in] or batch first; W is [directions, gates x hidden, in], R has hidden in place of in."""
    return 2 * prod(call.input(0, 3)[:2]) * (prod(call.input(1, 3)) + prod(call.input(2, 3)))


def _attention(call: Call) -> int:
    """``ai.onnx`` Attention: Q x K^T and the weights x V; tensors are 4-D, or 3-D with heads as attributes."""
    query, key, value = call.input(0, 3), call.input(1, 3), call.input(2, 3)
    if len(query) == 4:
        batch, heads, rows, width = query
        columns, out = key[2], value[3] if len(value) == 4 else width
    else:
        heads = call.attribute("q_num_heads", 0)
        if heads <= 0 or call.attribute("kv_num_heads", 0) <= 0:
            raise UnknownShape("heads")
        batch, rows, width = query[0], query[1], query[2] // heads
        columns, out = key[1], value[2] // call.attribute("kv_num_heads", 0)
    return 2 * batch * heads * rows * columns * (width + out)


def _packed_attention(call: Call) -> int:
    """``com.microsoft`` Attention: one product makes Q, K and V (input [batch, seq, in] x [in, 3 x hidden])."""
    batch, rows, inner = call.input(0, 3)[:3]
    hidden = call.input(1, 2)[1]
    return 2 * batch * rows * inner * hidden + 4 * batch * rows * rows * (hidden // 3)


def _multi_head_attention(call: Call) -> int:
    """``com.microsoft`` MultiHeadAttention over [batch, seq, hidden]."""
    query, key, value = call.input(0, 3), call.input(1, 3), call.input(2, 3)
    if not len(query) == len(key) == len(value) == 3:
        raise UnknownShape("packed heads")
    return 2 * query[0] * query[1] * key[1] * (query[2] + value[2])


def _einsum(call: Call) -> int:
    """Two operands: every combination of labels is one multiplication with its addition."""
    left = call.text("equation").replace(" ", "").partition("->")[0].split(",")
    if len(left) != 2 or any("." in term for term in left):
        raise UnknownShape("equation")
    sizes: dict[str, int] = {}
    for index, term in enumerate(left):
        shape = call.input(index, 0)
        if len(shape) != len(term):
            raise UnknownShape("equation")
        for label, size in zip(term, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return 2 * prod(sizes.values())


RULES: Final[dict[tuple[str, str], Rule]] = {
    ("", "Conv"): _convolution(1),
    ("", "ConvInteger"): _convolution(1),
    ("", "DeformConv"): _convolution(1),
    ("", "QLinearConv"): _convolution(3),
    ("", "ConvTranspose"): _transposed_convolution,
    ("", "MatMul"): _product(0),
    ("", "MatMulInteger"): _product(0),
    ("", "QLinearMatMul"): _product(0),
    ("", "Gemm"): _gemm,
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    ("", "Attention"): _attention,
    ("com.microsoft", "FusedConv"): _convolution(1),
    ("com.microsoft", "NhwcFusedConv"): _convolution(1),
    ("com.microsoft", "FusedMatMul"): _fused_product,
    ("com.microsoft", "FusedGemm"): _gemm,
    ("com.microsoft", "QGemm"): _gemm,
    ("com.microsoft", "DynamicQuantizeMatMul"): _product(0),
    ("com.microsoft", "MatMulIntegerToFloat"): _product(0),
    ("com.microsoft", "MatMulNBits"): _narrow_product,
    ("com.microsoft", "MatMulBnb4"): _narrow_product,
    ("com.microsoft", "Attention"): _packed_attention,
    ("com.microsoft", "MultiHeadAttention"): _multi_head_attention,
}
UNCOUNTED: Final = frozenset({("com.microsoft", "GroupQueryAttention"), ("com.microsoft", "QAttention")})
"""Contractions without a rule: they are listed as unknown, never as free."""
