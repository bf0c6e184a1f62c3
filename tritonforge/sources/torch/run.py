"""Run a loaded module on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, ForgeError
from tritonforge.sources.torch.arguments import bind, described, forward_arguments
from tritonforge.sources.torch.outputs import named
from tritonforge.sources.torch.tensors import to_array, to_tensor
from tritonforge.sources.torch.user_code import raised_by_user

if TYPE_CHECKING:
    import numpy as np
    import torch


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
