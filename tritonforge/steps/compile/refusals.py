"""What Triton's pytorch backend cannot serve, told by the tensor's name before a server would.

Source: triton-inference-server/pytorch_backend, ``src/libtorch_utils.cc`` (ModelConfigDataTypeToTorchType),
``src/libtorch.cc`` and ``src/pt2/model_instance_state.cc`` (string inputs, scalar outputs).
"""

from __future__ import annotations

from typing import Final

from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed

_TYPES: Final = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
_HINT: Final = "cast inside the module, or serve it with `backend: python` or `onnxruntime`"


def refuse_unservable(signature: Signature, *, texts: bool) -> None:
    """Raise for the first tensor that the backend has no way to take or give. ``texts``: TorchScript's lists of them.

    Raises:
        CheckFailed: a type that it lacks, texts of a rank above 1, a scalar output, or an optional input.
    """
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.datatype == "BYTES" and texts:
                if len(tensor.shape) != 1:
                    raise CheckFailed(
                        f"the pytorch backend takes texts in one dimension only, and the {kind} '{tensor.name}' has "
                        f"{len(tensor.shape)}",
                        found=str(tensor),
                        expected=f"{tensor.name}: BYTES[-1] with `batched: false`",
                        hint="serve it with `backend: python`",
                    )
            elif tensor.datatype not in _TYPES:
                raise CheckFailed(
                    f"the pytorch backend has no type {tensor.datatype}, which the {kind} '{tensor.name}' is",
                    expected=", ".join(_TYPES),
                    found=str(tensor),
                    hint=_HINT,
                )
            if kind == "output" and not tensor.shape:
                raise CheckFailed(
                    f"the pytorch backend cannot answer with a scalar, which the output '{tensor.name}' is",
                    found=str(tensor),
                    expected="at least one axis",
                    hint="return it with an axis: `value.reshape(1)`",
                )
            if kind == "input" and tensor.optional:
                raise CheckFailed(
                    f"the pytorch backend needs every input, and '{tensor.name}' is optional",
                    hint="drop `optional`, or serve it with `backend: python`",
                )
