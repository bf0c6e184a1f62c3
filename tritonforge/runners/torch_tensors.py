"""Between NumPy arrays as runners have them and PyTorch's tensors.

``BF16`` is float32 in arrays (NumPy has no such type); ``BYTES`` is a list of texts in PyTorch, of rank 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.errors import CheckFailed
from tritonforge.sources.torch.tensors import to_array, to_tensor

if TYPE_CHECKING:
    import numpy as np


def to_torch(tensor: Tensor, array: np.ndarray[Any, Any]) -> Any:
    """An input as PyTorch takes it."""
    if tensor.datatype == "BYTES":
        return [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1).tolist()]
    return to_tensor(array, tensor.datatype)


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """An output as runners give it.

    Raises:
        CheckFailed: it is neither a tensor nor a list of texts.
    """
    import numpy as np
    import torch

    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        texts = np.empty(len(value), dtype=object)
        texts[:] = [item.encode() for item in value]
        return texts
    if not isinstance(value, torch.Tensor):
        raise CheckFailed(
            "an output is neither a tensor nor a list of texts",
            found=type(value).__name__,
            expected="a tensor, or a tuple of tensors",
        )
    return to_array(value)


def flat(answer: Any) -> list[Any]:
    """What a module returned as a list of outputs: one tensor, a tuple, or a list of texts that is one output."""
    import torch

    if isinstance(answer, torch.Tensor) or (isinstance(answer, list) and answer and isinstance(answer[0], str)):
        return [answer]
    return list(answer)


def ordered(signature: Signature, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
    """All inputs in the signature's order.

    Raises:
        CheckFailed: one is missing.
    """
    missing = [tensor.name for tensor in signature.inputs if tensor.name not in inputs]
    if missing:
        raise CheckFailed("an input is missing", found=", ".join(inputs) or "no inputs", expected=", ".join(missing))
    return [to_torch(tensor, inputs[tensor.name]) for tensor in signature.inputs]


def shapes(inputs: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Shapes of inputs for a message."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())


def last_line(error: BaseException) -> str:
    """The line of an error that says what is wrong: PyTorch puts its own stack in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("RuntimeError:", "ValueError:", "IndexError:"))]
    return ((told or lines or [type(error).__name__])[-1 if told else 0])[:400]
