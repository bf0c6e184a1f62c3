"""Read an ONNX file's signature and facts without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.artifact.datatypes import BY_NAME, BY_ONNX
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET: Final = 7
"""ONNX Runtime guarantees models from opset 7 upward (onnxruntime.ai, Compatibility)."""

LARGEST_MESSAGE: Final = (2 << 30) - 1
"""Bytes of the largest protobuf message; weights beyond it stand in external data."""

_STANDARD: Final = ("", "ai.onnx")
_ONNX_DOMAINS: Final = {*_STANDARD, "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"}
_ORT_DOMAINS: Final = {"com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"}

_KINDS: Final = {
    "sequence_type": "sequence",
    "map_type": "map",
    "optional_type": "optional value",
    "sparse_tensor_type": "sparse tensor",
    "opaque_type": "value of an opaque type",
}

_OWNERS: Final[Mapping[str, str]] = {
    "ai.onnx.contrib": "the package onnxruntime-extensions (tokenizers, image decoding): leave that part to a Python "
    "model in front of this one, or export without it",
    "com.microsoft.extensions": "the package onnxruntime-extensions: leave that part to a Python model in front of "
    "this one, or export without it",
    "com.microsoft.dml": "DirectML, on Windows alone",
    "trt.plugins": "TensorRT plugins: TensorRT's parser alone reads them",
    "TRT": "TensorRT plugins: TensorRT's parser alone reads them",
    "org.pytorch.aten": "PyTorch itself (an ATen fallback of its exporter): export again without the fallback",
    "pkg.onnxscript.torch_lib": "onnxscript's functions, which this file should define itself: export it again",
    "mmdeploy": "MMDeploy's own library of custom operators: export without its plugins",
    "mmcv": "MMCV's own library of custom operators: export without its plugins",
}
"""Who has the operators of well-known domains that ONNX Runtime lacks, and what to do."""


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
    size = path.stat().st_size
    if size == 0:
        raise CheckFailed(f"{path.name} is empty", place=place, expected="an ONNX model")
    if size > LARGEST_MESSAGE:
        raise CheckFailed(
            f"{path.name} is larger than a protobuf message can be",
            place=place,
            expected="2 GiB at most, with larger weights in external data",
            found=f"{size} bytes",
            hint="save it again with onnx.save(…, save_as_external_data=True)",
        )
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise CheckFailed(
            f"{path.name} is truncated or not ONNX",
            place=place,
            expected="an ONNX ModelProto",
            found=f"{size} bytes that do not parse ({error})",
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
    return tuple(sorted(external_extents(model, place)))


def external_extents(model: onnx.ModelProto, place: Place) -> dict[str, int]:
    """The external data files that the model names, and how many bytes each must have at least.

    Raises:
        CheckFailed: one of them is outside the model's folder, or a place in it is no number.
    """
    import onnx.external_data_helper as helper

    extents: dict[str, int] = {}
    for tensor in helper._get_all_tensors(model):
        if not helper.uses_external_data(tensor):
            continue
        stated = {entry.key: entry.value for entry in tensor.external_data}
        location = stated.get("location", "")
        if not is_inside(location):
            raise CheckFailed("external data is outside the model's folder", place=place, found=location)
        try:
            end = int(stated.get("offset") or 0) + int(stated.get("length") or 0)
        except ValueError:
            raise CheckFailed(
                f"the place of '{tensor.name}' in external data is no number", place=place, found=str(stated)
            ) from None
        extents[location] = max(extents.get(location, 0), end)
    return extents


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, also those of branches, loops and the model's own functions."""
    pending = [model.graph.node, *(function.node for function in model.functions)]
    while pending:
        for node in pending.pop():
            yield node
            for attribute in node.attribute:
                pending.extend(graph.node for graph in (attribute.g, *attribute.graphs) if graph.node)


def free_empty_axes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Make dynamic the axes that the file fixes at size 0; the inputs and outputs that have such.

    Triton's config has no size 0 (core ``ValidateIOShape``: a dim is 1 or more, or -1), while a request may well have
    an axis of no elements.
    """
    constant = {item.name for item in model.graph.initializer}
    freed: dict[str, None] = {}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in constant:
            continue
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value == 0:
                dim.ClearField("dim_value")
                freed[value.name] = None
    return tuple(freed)


def operator_domains(model: onnx.ModelProto) -> dict[str, set[str]]:
    """The operators that are used, by domain; the standard domain is the empty text."""
    used: dict[str, set[str]] = {}
    for node in nodes_of(model):
        used.setdefault("" if node.domain in _STANDARD else node.domain, set()).add(node.op_type)
    return used


def facts(model: onnx.ModelProto, place: Place) -> OnnxFacts:
    """Signature, opset and producer.

    Raises:
        CheckFailed: an opset below 7 or above what the installed ONNX knows, or a value that Triton cannot carry.
    """
    import onnx

    domains = {item.domain: item.version for item in model.opset_import}
    used = operator_domains(model)
    opset = domains.get("", domains.get("ai.onnx", 0))
    newest = onnx.defs.onnx_opset_version()
    # Models of nothing but ai.onnx.ml (trees, scikit-learn) need no standard operators, and some import none.
    if not OLDEST_OPSET <= opset <= newest and ("" in used or opset != 0):
        raise CheckFailed(
            f"opset {opset} is not supported",
            place=place,
            expected=f"an opset from {OLDEST_OPSET} to {newest}",
            found=f"opset {opset}",
            hint="export it again with a supported opset, or convert it (onnx.version_converter)",
        )
    _refuse_foreign(model, used, place)
    constant = {item.name for item in model.graph.initializer}
    inputs = tuple(_tensor(item, place) for item in model.graph.input if item.name not in constant)
    outputs = tuple(_tensor(item, place) for item in model.graph.output)
    tensors = (*inputs, *outputs)
    batched = bool(inputs) and all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in tensors)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return OnnxFacts(
        Signature(inputs, outputs, batched), opset, domains, model.ir_version, producer, external_files(model, place)
    )


def _refuse_foreign(model: onnx.ModelProto, used: Mapping[str, set[str]], place: Place) -> None:
    """Refuse operators that neither ONNX, ONNX Runtime nor the file itself defines."""
    own = {(function.domain, function.name) for function in model.functions}
    foreign = {
        domain: sorted(name for name in names if (domain, name) not in own)
        for domain, names in used.items()
        if domain not in _ONNX_DOMAINS | _ORT_DOMAINS
    }
    foreign = {domain: names for domain, names in sorted(foreign.items()) if names}
    if not foreign:
        return
    operators = [f"{domain}::{name}" for domain, names in foreign.items() for name in names]
    known = [f"'{domain}' belongs to {_OWNERS[domain]}" for domain in foreign if domain in _OWNERS]
    raise CheckFailed(
        "the model uses operators that ONNX Runtime does not have",
        place=place,
        found=", ".join(operators[:8]) + (f" and {len(operators) - 8} more" if len(operators) > 8 else ""),
        details=known,
        hint="export without them"
        if len(known) == len(foreign)
        else "register them as a custom-op library, which this version cannot package, or export without them",
    )


def _element(number: int) -> str:
    """ONNX's name of an element type."""
    from onnx import TensorProto

    names = {int(item): str(name) for name, item in TensorProto.DataType.items()}
    return f"the ONNX element type {names.get(number, number)}"


def _tensor(value: onnx.ValueInfoProto, place: Place) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        named = _KINDS.get(str(kind), "value without a type")
        raise CheckFailed(
            f"'{value.name}' is {'an' if named[0] in 'aeiou' else 'a'} {named}",
            place=place,
            expected="tensors alone: Triton carries nothing else",
            hint="export without it (scikit-learn: zipmap=False)",
        )
    tensor = value.type.tensor_type
    datatype = BY_ONNX.get(tensor.elem_type)
    if datatype is None:
        raise CheckFailed(
            f"'{value.name}' is of {_element(tensor.elem_type)}, which Triton cannot carry",
            place=place,
            expected=", ".join(BY_NAME),
            hint="cast it inside the model",
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
