"""What a signature says about a config: inputs, outputs and their shapes.

Source: Triton ``docs/user_guide/model_configuration.md`` (Inputs and Outputs, Reshape) and core's
``ValidateIOShape``: with ``max_batch_size > 0`` the whole shape is ``[-1] + dims``; ``dims`` is never empty, so that a
scalar is ``dims: [1]``, reshaped to ``[]`` where there is a batch axis left and taken as ``[1]`` where there is none
(an empty reshape is refused without batching).
"""

from __future__ import annotations

from typing import Any

from tritonforge.artifact.datatypes import data_type
from tritonforge.artifact.signature import Dim, Signature, Tensor


def derived_values(
    name: str,
    backend: str,
    signature: Signature,
    *,
    batching: bool,
    reshape_scalars: bool = True,
    model_filename: str | None = None,
) -> dict[str, Any]:
    """The config's fields that follow from what the model is, as a layer's values.

    ``batching``: whether ``max_batch_size`` will be above 0. ``reshape_scalars`` is false for models that hand tensors
    on as clients sent them (ensembles, routers).
    """
    values: dict[str, Any] = {"name": name}
    # An ensemble has a platform and no backend, all others the reverse (core, ValidateModelConfig).
    values.update({"platform": "ensemble"} if backend == "ensemble" else {"backend": backend})
    values["input"] = [tensor_values(tensor, batching, reshape_scalars) for tensor in signature.inputs]
    values["output"] = [tensor_values(tensor, batching, reshape_scalars) for tensor in signature.outputs]
    for item, tensor in zip(values["input"], signature.inputs, strict=True):
        if tensor.optional:
            item["optional"] = True
        if tensor.ragged and batching:
            item["allow_ragged_batch"] = True
    if model_filename is not None:
        values["default_model_filename"] = model_filename
    return values


def tensor_values(tensor: Tensor, batching: bool, reshape_scalars: bool = True) -> dict[str, Any]:
    """One tensor as ``config.pbtxt`` states it."""
    dims = list(tensor.dims(batching))
    values: dict[str, Any] = {"name": tensor.name, "data_type": data_type(tensor.datatype).config, "dims": dims or [1]}
    if not dims and batching and reshape_scalars:
        values["reshape"] = {"shape": []}
    return values


def served_signature(message: Any, signature: Signature) -> Signature:
    """What clients of a config see: its ``dims`` instead of the model's own shapes, a batch axis where it batches.

    Names of dynamic axes are kept from ``signature`` where the ranks agree. Ensembles and routers are built from this.
    """
    batching = message.max_batch_size > 0
    known = {tensor.name: tensor for tensor in (*signature.inputs, *signature.outputs)}

    def seen(item: Any, optional: bool, ragged: bool) -> Tensor:
        old = known.get(item.name)
        shape: tuple[Dim, ...] = () if old is None else old.shape[1:] if batching and signature.batched else old.shape
        named = len(shape) == len(item.dims)
        axes: list[Dim] = []
        for axis, dim in enumerate(item.dims):
            if dim >= 0:
                axes.append(int(dim))
            else:
                kept = shape[axis] if named else None
                axes.append(kept if isinstance(kept, str) else f"?{item.name}.{axis}")
        batch: Dim = old.shape[0] if old is not None and signature.batched and old.shape else "batch"
        if batching:
            axes.insert(0, batch if isinstance(batch, str) else "batch")
        return Tensor(item.name, datatype_name(item.data_type), tuple(axes), optional, ragged)

    return Signature(
        tuple(seen(item, item.optional, item.allow_ragged_batch) for item in message.input),
        tuple(seen(item, False, False) for item in message.output),
        batching,
    )


def datatype_name(number: int) -> str:
    """Triton's name of a ``DataType`` value (``FP32``, ``BYTES``)."""
    from tritonclient.grpc import model_config_pb2

    return data_type(model_config_pb2.DataType.Name(number)).name
