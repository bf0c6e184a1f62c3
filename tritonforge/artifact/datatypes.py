"""The element types of tensors: Triton's name, the config's enum, numpy's and ONNX's.

Source: Triton ``docs/user_guide/model_configuration.md`` (Datatypes) and ``onnx.TensorProto.DataType``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tritonforge.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class DataType:
    """One element type: ``name`` as in the inference protocol, ``config`` as in ``config.pbtxt``."""

    name: str
    config: str
    numpy: str | None
    onnx: int
    bytes: int | None


_TYPES: Final = (
    DataType("BOOL", "TYPE_BOOL", "bool", 9, 1),
    DataType("UINT8", "TYPE_UINT8", "uint8", 2, 1),
    DataType("UINT16", "TYPE_UINT16", "uint16", 4, 2),
    DataType("UINT32", "TYPE_UINT32", "uint32", 12, 4),
    DataType("UINT64", "TYPE_UINT64", "uint64", 13, 8),
    DataType("INT8", "TYPE_INT8", "int8", 3, 1),
    DataType("INT16", "TYPE_INT16", "int16", 5, 2),
    DataType("INT32", "TYPE_INT32", "int32", 6, 4),
    DataType("INT64", "TYPE_INT64", "int64", 7, 8),
    DataType("FP16", "TYPE_FP16", "float16", 10, 2),
    DataType("FP32", "TYPE_FP32", "float32", 1, 4),
    DataType("FP64", "TYPE_FP64", "float64", 11, 8),
    DataType("BF16", "TYPE_BF16", None, 16, 2),
    DataType("BYTES", "TYPE_STRING", "object", 8, None),
)
BY_NAME: Final = {item.name: item for item in _TYPES}
BY_CONFIG: Final = {item.config: item for item in _TYPES}
BY_ONNX: Final = {item.onnx: item for item in _TYPES}


def data_type(name: str) -> DataType:
    """The type called ``name``: ``FP32``, ``TYPE_FP32``, or numpy's ``float32``.

    Raises:
        SpecError: no such type; ``TYPE_BYTES`` is answered with ``TYPE_STRING`` (facts: it does not exist in a config).
    """
    found = BY_NAME.get(name) or BY_CONFIG.get(name)
    if found is None and name in ("STRING", "TYPE_BYTES"):
        found = BY_NAME["BYTES"]
    if found is None:
        found = next((item for item in _TYPES if item.numpy == name and name != "object"), None)
    if found is None:
        raise SpecError(f"unknown data type '{name}'", hint=did_you_mean(name.upper(), BY_NAME))
    return found


def exact_array(values: Any, name: str) -> np.ndarray[Any, Any]:
    """Written values as an array of the type ``name``; floats are rounded to it, everything else stays what it was.

    Raises:
        ValueError, TypeError, OverflowError: the type cannot hold the values.
    """
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):
        array = np.array(values, dtype=np.dtype(BY_NAME[name].numpy or "float32"))
    if array.dtype.kind not in "iub" or array.size == 0:
        return array
    written = np.array(values)
    if array.dtype.kind == "b" and written.dtype.kind != "b":
        raise ValueError(f"true and false are wanted, not {written.reshape(-1)[0]}")
    if written.dtype.kind in "iuf" and not np.array_equal(array, written):
        raise ValueError(f"{written[array != written].reshape(-1)[0]} is no value of {name}")
    return array
