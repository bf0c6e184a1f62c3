"""TensorFlow's element types and shapes as they stand in its protobuf messages.

Source: ``tensorflow/core/framework/types.proto``, ``tensor_shape.proto``.
"""

from __future__ import annotations

from typing import Final

from tritonforge.sources.look.facts import Dim
from tritonforge.sources.wire import Buffer, fields, integer, text

TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("FP32", 4), 2: ("FP64", 8), 3: ("INT32", 4), 4: ("UINT8", 1), 5: ("INT16", 2), 6: ("INT8", 1),
    7: ("BYTES", 0), 8: ("complex64", 8), 9: ("INT64", 8), 10: ("BOOL", 1), 11: ("qint8", 1), 12: ("quint8", 1),
    13: ("qint32", 4), 14: ("BF16", 2), 15: ("qint16", 2), 16: ("quint16", 2), 17: ("UINT16", 2),
    18: ("complex128", 16), 19: ("FP16", 2), 20: ("resource", 0), 21: ("variant", 0), 22: ("UINT32", 4),
    23: ("UINT64", 8), 24: ("float8_e5m2", 1), 25: ("float8_e4m3fn", 1),
}  # fmt: skip
"""``DataType`` → (Triton's name where it has one, bytes). A reference type is its type plus 100."""

NO_WEIGHTS: Final = frozenset({"BYTES", "INT64", "BOOL", "resource", "variant"})
"""Counters, texts and handles; everything else can be a weight."""


def name_of(number: int) -> str:
    """The type's name; of an unknown one its number."""
    return TYPES.get(number % 100, (f"type {number}", 0))[0]


def bytes_of(number: int) -> int:
    """Bytes of one element; 0 where it has no fixed width."""
    return TYPES.get(number % 100, ("", 0))[1]


def shape_of(data: Buffer, start: int, stop: int, name: str) -> tuple[Dim, ...] | None:
    """A ``TensorShapeProto``; an axis of unknown size is called after the tensor; None where the rank is unknown."""
    dims: list[Dim] = []
    for number, _, begin, end in fields(data, start, stop):
        if number == 3 and integer(data, begin, end):
            return None
        if number == 2:
            size, label = 0, ""
            for inner, _, at, to in fields(data, begin, end):
                if inner == 1:
                    size = integer(data, at, to)
                elif inner == 2:
                    label = text(data, at, to)
            dims.append(size if size >= 0 else label or f"?{name}.{len(dims)}")
    return tuple(dims)
