"""ONNX's element types: the name that Triton gives them where it has one, and their width.

Source: ``onnx.TensorProto.DataType`` and ``docs/docsgen/source/technical`` of ONNX (float8, int4, float4).
"""

from __future__ import annotations

from typing import Final

TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("FP32", 32), 2: ("UINT8", 8), 3: ("INT8", 8), 4: ("UINT16", 16), 5: ("INT16", 16), 6: ("INT32", 32),
    7: ("INT64", 64), 8: ("BYTES", 0), 9: ("BOOL", 8), 10: ("FP16", 16), 11: ("FP64", 64), 12: ("UINT32", 32),
    13: ("UINT64", 64), 14: ("complex64", 64), 15: ("complex128", 128), 16: ("BF16", 16), 17: ("float8e4m3fn", 8),
    18: ("float8e4m3fnuz", 8), 19: ("float8e5m2", 8), 20: ("float8e5m2fnuz", 8), 21: ("uint4", 4), 22: ("int4", 4),
    23: ("float4e2m1", 4), 24: ("float8e8m0", 8), 25: ("uint2", 2), 26: ("int2", 2), 27: ("float6e2m3", 6),
    28: ("float6e3m2", 6),
}  # fmt: skip
"""Element type → (name, bits). Strings have no width: 0."""

NO_WEIGHTS: Final = frozenset({0, 7, 8, 9})
"""Types of shapes, indices, texts and masks; everything else can be a weight."""


def name_of(element: int) -> str:
    """The type's name; of an unknown one its number."""
    return TYPES.get(element, (f"type {element}", 0))[0]


def bytes_of(element: int, count: int) -> int:
    """Bytes of ``count`` elements, packed as ONNX packs them."""
    return (TYPES.get(element, ("", 32))[1] * count + 7) // 8
