"""Run a loaded module on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, ForgeError
from tritonforge.sources.torch.arguments import bind, described, forward_arguments
from tritonforge.sources.torch.outputs import named
from tritonforge.sources.torch.user_code import raised_by_user

if TYPE_CHECKING:
    import numpy as np
    import torch

TORCH_TYPES: Final[Mapping[str, str]] = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BF16": "bfloat16",
}  # fmt: skip
"""PyTorch's names of Triton's types; it has no texts."""


def run_module(
    module: torch.nn.Module,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, np.ndarray[Any, Any]],
    signature: Signature | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name: those of ``signature`` where it has any, else of ``recipe["outputs"]``, else forward's own.

    ``BF16`` is float32 in arrays; ``signature`` says which inputs are ``BF16``.

    Raises:
        CheckFailed: the module cannot be run on these inputs; its own words, its arguments and the shapes are in it.
    """
    import torch

    names = [tensor.name for tensor in signature.inputs] if signature is not None else list(inputs)
    if signature is not None and signature.outputs:
        wanted = [tensor.name for tensor in signature.outputs]
    else:
        wanted = list(recipe.get("outputs") or ())
    types = {tensor.name: tensor.datatype for tensor in signature.inputs} if signature is not None else {}
    tensors = {name: to_tensor(inputs[name], types.get(name)) for name in names}
    call = bind(module, names, recipe.get("sample") or {})
    try:
        with torch.no_grad():
            answer = call.apply(module, tensors)
    except ForgeError:
        raise
    except Exception as error:  # the user's code raises whatever it likes
        where = raised_by_user(error)
        raise CheckFailed(
            "forward raises on inputs of these shapes",
            expected=f"inputs that forward({described(forward_arguments(module))}) takes",
            found=f"{_words(error)} with {shapes(inputs)}",
            details=[] if where is None else [f"raised in {where[0].name}, line {where[1]}"],
            hint=_hint(error),
        ) from None
    return {name: to_array(value) for name, value in named(answer, wanted).items()}


def to_tensor(array: np.ndarray[Any, Any], datatype: str | None) -> torch.Tensor:
    """An array as a tensor of the type that the signature states.

    Raises:
        CheckFailed: texts, which PyTorch does not have.
    """
    import torch

    if array.dtype.kind == "O" or datatype == "BYTES":
        raise CheckFailed(
            "PyTorch has no tensors of texts",
            expected=", ".join(TORCH_TYPES),
            found="BYTES",
            hint="tokenise in a model of its own before this one (an ensemble)",
        )
    made = torch.from_numpy(array.copy())  # a module may change its inputs in place
    return made if datatype is None else made.to(getattr(torch, TORCH_TYPES[datatype]))


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


def shapes(inputs: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Types and shapes of inputs for a message."""
    return ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in inputs.items())


def _words(error: Exception) -> str:
    """What the error says; TorchScript puts its own stack in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    text = (told[-1] if told else " ".join(lines)) or ""
    name = type(error).__name__
    return (text if text.startswith(name) else f"{name}: {text}")[:400]


def _hint(error: Exception) -> str:
    text = str(error)
    if "same dtype" in text or "expected scalar type" in text or "should be the same" in text:
        return "the weights have another precision than the inputs: declare the inputs in the precision of the weights"
    if "index out of range" in text or isinstance(error, IndexError):
        return "say which values its inputs have under `golden.ranges`"
    return (
        "state `inputs` with the types and shapes that forward takes, and sizes of dynamic axes under `golden.axes`; "
        "`batched: false` where axis 0 is no batch"
    )
