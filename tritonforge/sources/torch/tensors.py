"""One array as a tensor of PyTorch, and back. ``BF16`` is float32 in arrays: NumPy has no such type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tritonforge.errors import CheckFailed

if TYPE_CHECKING:
    import numpy as np
    import torch

TORCH_NAMES: Final[Mapping[str, str]] = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BF16": "bfloat16",
}  # fmt: skip
"""PyTorch's names of Triton's types; it has no texts."""


def to_tensor(array: np.ndarray[Any, Any], datatype: str | None) -> torch.Tensor:
    """An array as a tensor of the type that the signature states.

    Raises:
        CheckFailed: texts, which PyTorch does not have.
    """
    import torch

    if array.dtype.kind == "O" or datatype == "BYTES":
        raise CheckFailed(
            "PyTorch has no tensors of texts",
            expected=", ".join(TORCH_NAMES),
            found="BYTES",
            hint="tokenise in a model of its own before this one (an ensemble)",
        )
    made = torch.from_numpy(array.copy())  # a module may change its inputs in place
    return made if datatype is None else made.to(getattr(torch, TORCH_NAMES[datatype]))


def to_array(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array; bfloat16 becomes float32."""
    import torch

    value = value.detach().cpu()
    if value.is_sparse or value.is_quantized:
        raise CheckFailed("an output is no dense tensor", found=str(value.layout), expected="a strided tensor")
    if value.dtype == torch.bfloat16:
        value = value.float()
    made: np.ndarray[Any, Any] = value.resolve_conj().resolve_neg().contiguous().numpy()
    return made
