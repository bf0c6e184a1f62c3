"""Read an ONNX file's signature and facts without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.artifact.datatypes import BY_ONNX
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET: Final = 7
"""ONNX Runtime guarantees models from opset 7 upward (onnxruntime.ai, Compatibility)."""

_ONNX_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"}
_ORT_DOMAINS: Final = {"com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"}


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What the file says of itself; ``signature.batched`` is only a guess until the model was run."""

    signature: Signature
    opset: int
    domains: Mapping[str, int]
    ir_version: int
    producer: str
    external: tuple[str, ...]

    def metadata(self) -> dict[str, Any]:
        """For an artifact's manifest."""
        return {
            "opset": self.opset,
            "domains": dict(self.domains),
            "ir_version": self.ir_version,
            "producer": self.producer,
        }


def parse(path: Path, place: Place | None = None) -> onnx.ModelProto:
    """The model without external data.

    Raises:
        CheckFailed: the file is truncated or no ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    place = place or Place(path)
    if path.stat().st_size == 0:
        raise CheckFailed(f"{path.name} is empty", place=place, expected="an ONNX model")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise CheckFailed(
            f"{path.name} is truncated or not ONNX",
            place=place,
            expected="an ONNX ModelProto",
            found=f"{path.stat().st_size} bytes that do not parse ({error})",
            hint="export it again, or compare its sha256 with the one where it came from",
        ) from None
    if model.ir_version == 0 or not model.graph.output:
        raise CheckFailed(
            f"{path.name} is truncated or not ONNX",
            place=place,
            expected="an ONNX ModelProto with a graph and outputs",
            found=f"ir_version {model.ir_version}, {len(model.graph.node)} nodes, {len(model.graph.output)} outputs",
        )
    return model


def external_files(model: onnx.ModelProto, place: Place) -> tuple[str, ...]:
    """The external data files that the model names, relative to it.

    Raises:
        CheckFailed: one of them is outside the model's folder.
    """
    import onnx.external_data_helper as helper

    names: set[str] = set()
    for tensor in helper._get_all_tensors(model):
        if helper.uses_external_data(tensor):
            location = helper.ExternalDataInfo(tensor).location
            if not is_inside(location):
                raise CheckFailed("external data is outside the model's folder", place=place, found=location)
            names.add(location)
    return tuple(sorted(names))


def facts(model: onnx.ModelProto, place: Place) -> OnnxFacts:
    """Signature, opset and producer.

    Raises:
        CheckFailed: an opset below 7 or above what the installed ONNX knows, or a value that Triton cannot carry.
    """
    import onnx

    domains = {item.domain: item.version for item in model.opset_import}
    opset = domains.get("", domains.get("ai.onnx", 0))
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise CheckFailed(
            f"opset {opset} is not supported",
            place=place,
            expected=f"an opset from {OLDEST_OPSET} to {newest}",
            found=f"opset {opset}",
            hint="export it again with a supported opset, or convert it (onnx.version_converter)",
        )
    functions = {function.domain for function in model.functions}
    used = {node.domain for node in model.graph.node}
    foreign = sorted(used - _ONNX_DOMAINS - _ORT_DOMAINS - functions)
    if foreign:
        operators = sorted({f"{node.domain}::{node.op_type}" for node in model.graph.node if node.domain in foreign})
        raise CheckFailed(
            "the model uses operators that ONNX Runtime does not have",
            place=place,
            found=", ".join(operators[:8]),
            hint="register them as a custom-op library, which this version cannot package, or export without them",
        )
    constant = {item.name for item in model.graph.initializer}
    inputs = tuple(_tensor(item, place) for item in model.graph.input if item.name not in constant)
    outputs = tuple(_tensor(item, place) for item in model.graph.output)
    tensors = (*inputs, *outputs)
    batched = bool(inputs) and all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in tensors)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return OnnxFacts(
        Signature(inputs, outputs, batched), opset, domains, model.ir_version, producer, external_files(model, place)
    )


def _tensor(value: onnx.ValueInfoProto, place: Place) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise CheckFailed(
            f"'{value.name}' is a {(kind or 'value without a type').replace('_type', '')}",
            place=place,
            expected="tensors alone: Triton carries nothing else",
            hint="export without it (scikit-learn: zipmap=False)",
        )
    tensor = value.type.tensor_type
    datatype = BY_ONNX.get(tensor.elem_type)
    if datatype is None:
        raise CheckFailed(
            f"'{value.name}' has the ONNX element type {tensor.elem_type}, which Triton cannot carry", place=place
        )
    if not tensor.HasField("shape"):
        raise CheckFailed(
            f"'{value.name}' has no rank",
            place=place,
            expected="a shape with a known number of axes",
            hint="run ONNX shape inference",
        )
    shape: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            shape.append(int(dim.dim_value))
        else:
            shape.append(dim.dim_param or f"?{value.name}.{axis}")
    return Tensor(value.name, datatype.name, tuple(shape))
