"""Evaluate the small tensors with which a graph computes shapes: sizes, axes, indices. Nothing large is computed.

Semantics are those of ONNX's operator schemas, as numpy has them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final

import numpy as np

LIMIT: Final = 4096
"""Elements of a value that is still followed."""

Array = np.ndarray[Any, Any]

_TYPES: Final[dict[int, Any]] = {
    1: np.float32,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    11: np.float64,
}
_NUMBERS: Final = {np.dtype(kind): number for number, kind in _TYPES.items()}
_FIELDS: Final = {1: "float_data", 6: "int32_data", 7: "int64_data", 9: "int32_data", 11: "double_data"}


def decode(tensor: Any) -> Array | None:
    """The content of a small TensorProto of numbers; None for any other."""
    kind = _TYPES.get(tensor.data_type)
    shape = tuple(tensor.dims)
    if kind is None or tensor.data_location == 1 or prod(shape) > LIMIT or any(size < 0 for size in shape):
        return None
    try:
        if tensor.raw_data:
            return np.frombuffer(tensor.raw_data, dtype=kind).reshape(shape)
        return np.array(list(getattr(tensor, _FIELDS[tensor.data_type])), dtype=kind).reshape(shape)
    except ValueError:
        return None


def encode(array: Array, tensor: Any) -> Any:
    """Write a value into an empty TensorProto."""
    tensor.dims.extend(array.shape)
    tensor.data_type = _NUMBERS[array.dtype]
    tensor.raw_data = np.ascontiguousarray(array).tobytes()
    return tensor


def number_of(array: Array) -> int:
    """ONNX's number of the value's type."""
    return _NUMBERS[array.dtype]


def evaluate(node: Any, inputs: list[Array | None]) -> Array | None:
    """What ``node`` makes of known inputs (None where one is left out); None where that is not small or not known."""
    act = _ACTS.get(node.op_type)
    if act is None:
        return None
    try:
        with np.errstate(all="ignore"):
            found = act({item.name: item for item in node.attribute}, inputs)
    except (ValueError, IndexError, TypeError, OverflowError, KeyError, MemoryError, ZeroDivisionError):
        return None  # the graph is at fault, and whoever runs it will say so
    if found is None:
        return None
    array = np.asarray(found)
    return array if array.size <= LIMIT and array.dtype in _NUMBERS else None


def shape_value(node: Any, shape: tuple[int, ...]) -> Array:
    """What Shape (with ``start`` and ``end``) or Size makes of a tensor of this shape."""
    if node.op_type == "Size":
        return np.array(prod(shape), np.int64)
    said = {item.name: int(item.i) for item in node.attribute}
    return np.array(shape[said.get("start", 0) : said.get("end", len(shape))], np.int64)


Attributes = dict[str, Any]
Act = Callable[[Attributes, list[Any]], Any]


def _integer(attributes: Attributes, name: str, default: int) -> int:
    return int(attributes[name].i) if name in attributes else default


def _axes(attributes: Attributes, inputs: list[Any], at: int = 1) -> tuple[int, ...] | None:
    if "axes" in attributes:
        return tuple(attributes["axes"].ints)
    return tuple(int(axis) for axis in inputs[at]) if len(inputs) > at and inputs[at] is not None else None


def _slice(attributes: Attributes, inputs: list[Any]) -> Any:
    data = inputs[0]
    if "starts" in attributes:
        starts, ends, steps = list(attributes["starts"].ints), list(attributes["ends"].ints), None
    else:
        starts, ends = inputs[1], inputs[2]
        steps = inputs[4] if len(inputs) > 4 else None
    axes = _axes(attributes, inputs, 3)
    parts = [slice(None)] * data.ndim
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = 1 if steps is None else int(steps[index])
        end: int | None = int(ends[index])
        if step < 0 and end is not None and end < -data.shape[axis]:
            end = None  # down to the first element
        parts[axis] = slice(int(starts[index]), end, step)
    return data[tuple(parts)]


def _unsqueeze(attributes: Attributes, inputs: list[Any]) -> Any:
    axes = _axes(attributes, inputs)
    return None if axes is None else np.expand_dims(inputs[0], axes)


def _squeeze(attributes: Attributes, inputs: list[Any]) -> Any:
    return np.squeeze(inputs[0], _axes(attributes, inputs))


def _reshape(attributes: Attributes, inputs: list[Any]) -> Any:
    data, to = inputs[0], [int(size) for size in inputs[1]]
    if not _integer(attributes, "allowzero", 0):
        to = [data.shape[index] if size == 0 else size for index, size in enumerate(to)]
    return data.reshape(to)


def _filled(attributes: Attributes, inputs: list[Any]) -> Any:
    shape = tuple(int(size) for size in inputs[0])
    if prod(shape) > LIMIT:
        return None
    fill = decode(attributes["value"].t) if "value" in attributes else np.zeros(1, np.float32)
    return None if fill is None else np.full(shape, fill.reshape(-1)[0], fill.dtype)


def _expand(attributes: Attributes, inputs: list[Any]) -> Any:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(int(size) for size in inputs[1]))
    return None if prod(shape) > LIMIT else np.broadcast_to(inputs[0], shape)


def _range(attributes: Attributes, inputs: list[Any]) -> Any:
    start, limit, delta = (item.reshape(-1)[0] for item in inputs)
    if abs((float(limit) - float(start)) / float(delta)) > LIMIT:
        return None
    return np.arange(start, limit, delta, dtype=inputs[0].dtype)


def _divide(attributes: Attributes, inputs: list[Any]) -> Any:
    left, right = inputs
    if left.dtype.kind != "i":
        return left / right
    return None if np.any(right == 0) else np.trunc(left / right).astype(left.dtype)


def _cast(attributes: Attributes, inputs: list[Any]) -> Any:
    kind = _TYPES.get(_integer(attributes, "to", 0))
    return None if kind is None else inputs[0].astype(kind)


def _reduced(reduce: Callable[..., Any]) -> Act:
    def act(attributes: Attributes, inputs: list[Any]) -> Any:
        keep = bool(_integer(attributes, "keepdims", 1))
        return reduce(inputs[0], axis=_axes(attributes, inputs), keepdims=keep).astype(inputs[0].dtype)

    return act


def _of(function: Callable[..., Any]) -> Act:
    return lambda attributes, inputs: function(*inputs)


_ACTS: Final[dict[str, Act]] = {
    "Identity": _of(lambda value: value),
    "Gather": lambda attributes, inputs: np.take(inputs[0], inputs[1], axis=_integer(attributes, "axis", 0)),
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": lambda attributes, inputs: np.concatenate(inputs, axis=_integer(attributes, "axis", 0)),
    "Slice": _slice,
    "Reshape": _reshape,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Range": _range,
    "Cast": _cast,
    "Add": _of(np.add),
    "Sub": _of(np.subtract),
    "Mul": _of(np.multiply),
    "Div": _divide,
    "Mod": _of(np.mod),
    "Neg": _of(np.negative),
    "Abs": _of(np.abs),
    "Min": _of(lambda *values: np.minimum.reduce(np.broadcast_arrays(*values))),
    "Max": _of(lambda *values: np.maximum.reduce(np.broadcast_arrays(*values))),
    "Floor": _of(np.floor),
    "Ceil": _of(np.ceil),
    "Sqrt": _of(np.sqrt),
    "Equal": _of(np.equal),
    "Greater": _of(np.greater),
    "GreaterOrEqual": _of(np.greater_equal),
    "Less": _of(np.less),
    "LessOrEqual": _of(np.less_equal),
    "Not": _of(np.logical_not),
    "And": _of(np.logical_and),
    "Or": _of(np.logical_or),
    "Where": _of(np.where),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMin": _reduced(np.min),
    "ReduceMax": _reduced(np.max),
}
