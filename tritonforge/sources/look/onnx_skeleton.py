"""An ONNX model without its weights: the bytes of the file less the contents of large tensors.

What is left parses as a ModelProto whose tensors still have names, types and shapes. The file is mapped, not read: the
pages of the weights are never touched.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.wire import Buffer, Damaged, fields

WHOLE_LIMIT: Final = 4 * 2**20
"""Files up to this size are read whole: that is quicker than looking for what to leave out."""

KEPT_LIMIT: Final = 4096
"""Tensors up to this size stay, for shape inference reads shapes and axes from them."""

_TENSOR: Final = "tensor"
_WITHIN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Field numbers of ``onnx-ml.proto`` below which tensors stand."""

_CONTENTS: Final = {4, 5, 6, 7, 9, 10, 11}
"""``TensorProto``: float, int32, string, int64, raw, double and uint64 data."""

_DEPTH_LIMIT: Final = 100
"""As deep as protobuf itself parses."""


def skeleton(path: Path) -> bytes:
    """The model's bytes without large tensors.

    Raises:
        CheckFailed: empty, truncated or no protobuf.
    """
    size = path.stat().st_size
    if size == 0:
        raise CheckFailed(f"{path.name} is empty", place=Place(path), expected="an ONNX model", found="0 bytes")
    if size <= WHOLE_LIMIT:
        return path.read_bytes()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return b"".join(_without_weights(data, 0, size, "model", 0))
        except Damaged as error:
            raise CheckFailed(
                f"{path.name} is truncated or not ONNX",
                place=Place(path),
                expected="an ONNX ModelProto",
                found=f"{size} bytes that do not parse ({error})",
                hint="export it again, or compare its sha256 with the one where it came from",
            ) from None


def _without_weights(data: Buffer, at: int, end: int, kind: str, depth: int) -> list[bytes]:
    if depth > _DEPTH_LIMIT:
        raise Damaged(f"messages are nested more than {_DEPTH_LIMIT} deep")
    within = _WITHIN.get(kind, {})
    tensor = kind == _TENSOR
    parts: list[bytes] = []
    kept = at  # everything from here on stays as it is
    for number, begin, start, stop in fields(data, at, end):
        if stop - start <= KEPT_LIMIT:
            continue
        if tensor and number in _CONTENTS:
            parts.append(data[kept:begin])
            kept = stop
        elif number in within:
            parts.append(data[kept:begin])
            inner = _without_weights(data, start, stop, within[number], depth + 1)
            parts.append(_head(number, sum(map(len, inner))))
            parts.extend(inner)
            kept = stop
    parts.append(data[kept:end])
    return parts


def _head(number: int, size: int) -> bytes:
    return _packed(number << 3 | 2) + _packed(size)


def _packed(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
