"""PyTorch's element types: Triton's name where it has one, and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tritonforge.sources.torch_file import TensorEntry

TYPES: Final[dict[str, tuple[str, int]]] = {
    "float32": ("FP32", 4), "float64": ("FP64", 8), "float16": ("FP16", 2), "bfloat16": ("BF16", 2),
    "uint8": ("UINT8", 1), "int8": ("INT8", 1), "int16": ("INT16", 2), "int32": ("INT32", 4), "int64": ("INT64", 8),
    "uint16": ("UINT16", 2), "uint32": ("UINT32", 4), "uint64": ("UINT64", 8), "bool": ("BOOL", 1),
    "complex32": ("complex32", 4), "complex64": ("complex64", 8), "complex128": ("complex128", 16),
    "qint32": ("qint32", 4), "quint4x2": ("quint4x2", 1), "quint2x4": ("quint2x4", 1),
}  # fmt: skip
"""Every other type of PyTorch (float8, qint8) has one byte."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The sum of stored tensors: ``parameters`` are trained elements by type, ``bytes`` those that serving needs."""

    parameters: int
    types: dict[str, int]
    bytes: int
    training: int


def name_of(dtype: str) -> str:
    """Triton's name of the type, or PyTorch's own."""
    return TYPES.get(dtype, (dtype, 1))[0]


def add_up(tensors: Iterable[TensorEntry]) -> Stored:
    """Count weights once, however many names they have; buffers are no parameters, an optimizer's state is no weight.

    ``training`` is the number of tensors that belong to an optimizer.
    """
    types: Counter[str] = Counter()
    size = parameters = training = 0
    for item in tensors:
        if item.name.startswith(("optim", "lr_scheduler")):
            training += 1
            continue
        if item.tied_to is not None:
            continue
        size += item.elements * TYPES.get(item.dtype, ("", 1))[1]
        types[name_of(item.dtype)] += item.elements
        if item.trained is not False:
            parameters += item.elements
    return Stored(parameters, dict(types.most_common()), size, training)
