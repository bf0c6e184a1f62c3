"""Look at an ONNX model: a file, or a folder that holds one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.formats import only
from tritonforge.sources.look.facts import Dim, Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes
from tritonforge.sources.look.onnx_cost import cost
from tritonforge.sources.look.onnx_external import External
from tritonforge.sources.look.onnx_light import messages, native
from tritonforge.sources.look.onnx_skeleton import skeleton
from tritonforge.sources.look.onnx_types import NO_WEIGHTS, bytes_of, name_of

OLDEST_OPSET: Final = 7
"""ONNX Runtime guarantees models from opset 7 upward (onnxruntime.ai, Compatibility)."""

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
RUNTIME_DOMAINS: Final = frozenset(
    {"com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"}
)
"""Contributed operators that ONNX Runtime has, and no other runtime (its ``docs/ContribOperators.md``)."""

_CONSTANT_WEIGHT: Final = 1024
"""Elements from which on a Constant node counts as a weight, not as a number in a formula."""


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the model at ``path``.

    Raises:
        CheckFailed: empty, truncated, no ONNX, or external data outside the model's folder.
        UsageError: an axis that the model does not have.
    """
    file = path if path.is_file() else only(path, ".onnx")
    if file is None:
        raise CheckFailed("the folder holds no single ONNX file", place=Place(path), expected="exactly one .onnx")
    place = Place(file)
    model = parse(file)
    graph = model.graph
    external = External(file)
    weights = _Weights()
    for tensor in graph.initializer:
        weights.add(tensor)
        if tensor.data_location == 1:
            external.add(tensor)
    for sparse in graph.sparse_initializer:
        weights.add(sparse.values, tuple(sparse.dims))
    constants = weights.shapes
    inputs = tuple(tensor_facts(value) for value in graph.input if value.name not in constants)
    outputs = tuple(tensor_facts(value) for value in graph.output)
    sizes = axis_sizes(dynamic_axes(inputs), axes, place)
    operators: Counter[tuple[str, str]] = Counter()
    for node in _nodes(graph.node, weights, external):
        operators[node.domain, node.op_type] += 1
    functions = {(item.domain, item.name): len(item.node) for item in model.functions}
    for function in model.functions:
        for node in _nodes(function.node, weights, external):
            operators[node.domain, node.op_type] += 0
    custom = _custom(operators, functions)
    opsets = {item.domain: item.version for item in model.opset_import}
    versions = _versions(model, opsets)
    found = cost(model, constants, sizes)
    return ModelFacts(
        format="onnx",
        path=path,
        files={file.name: file.stat().st_size, **external.files},
        inputs=inputs,
        outputs=outputs,
        sizes=sizes,
        parameters=weights.parameters,
        weight_types=dict(weights.types.most_common()),
        operators={_name(key): count for key, count in operators.most_common() if count},
        functions={_name(key): count for key, count in functions.items()},
        custom=custom,
        flops=found.flops,
        memory=Memory(weights.bytes, found.activations, found.unsized),
        versions=versions,
        problems=tuple(external.problems()),
        notes=(*found.notes, *_notes(opsets)),
    )


def parse(file: Path) -> Any:
    """The ModelProto of ``file``, without large weights.

    Raises:
        CheckFailed: empty, truncated or no ONNX.
    """
    from google.protobuf.message import DecodeError

    data = skeleton(file)
    size = file.stat().st_size
    try:
        model = messages().ModelProto.FromString(data)
    except DecodeError as error:
        found = f"{size} bytes that do not parse ({error})"
    else:
        if model.ir_version != 0 and model.graph.output:
            return model
        graph = model.graph
        found = f"ir_version {model.ir_version}, {len(graph.node)} nodes, {len(graph.output)} outputs in {size} bytes"
    raise CheckFailed(
        f"{file.name} is truncated or not ONNX",
        place=Place(file),
        expected="an ONNX ModelProto with a graph and outputs",
        found=found,
        hint="export it again, or compare its sha256 with the one where it came from",
    )


def tensor_facts(value: Any) -> TensorFacts:
    """An input or output as it is declared; an axis without a name gets one of its own."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorFacts(value.name, (kind or "untyped").replace("_type", ""))
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return TensorFacts(value.name, name_of(tensor.elem_type))
    shape: list[Dim] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            shape.append(int(dim.dim_value))
        else:
            shape.append(dim.dim_param or f"?{value.name}.{axis}")
    return TensorFacts(value.name, name_of(tensor.elem_type), tuple(shape))


class _Weights:
    """Adds up what the initializers say of themselves."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: Counter[str] = Counter()
        self.parameters = 0
        self.bytes = 0

    def add(self, tensor: Any, shape: tuple[int, ...] | None = None) -> None:
        """Count a tensor; ``shape`` where it differs from the stored values' (sparse ones)."""
        dims = tuple(tensor.dims)
        self.shapes[tensor.name] = dims if shape is None else shape
        count = prod(dims)
        element = tensor.data_type
        self.bytes += bytes_of(element, count)
        if element not in NO_WEIGHTS and dims:
            self.parameters += count
            self.types[name_of(element)] += count


def _nodes(nodes: Iterable[Any], weights: _Weights, external: External) -> Iterator[Any]:
    """Every node, those of subgraphs too; large constants are counted on the way."""
    for node in nodes:
        yield node
        kind = node.op_type
        if kind == "Constant":
            for item in node.attribute:
                if item.type == 4 and prod(item.t.dims) >= _CONSTANT_WEIGHT:
                    weights.add(item.t)
                    if item.t.data_location == 1:
                        external.add(item.t)
        elif kind in ("If", "Loop", "Scan", "SequenceMap"):
            for item in node.attribute:
                if item.type == 5:
                    for tensor in item.g.initializer:
                        weights.add(tensor)
                        if tensor.data_location == 1:
                            external.add(tensor)
                    yield from _nodes(item.g.node, weights, external)


def _custom(operators: Iterable[tuple[str, str]], functions: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    """Operators that neither ONNX nor ONNX Runtime nor the model itself defines."""
    known = native().defs.has_schema
    foreign = []
    for domain, kind in operators:
        if (domain, kind) in functions or domain in RUNTIME_DOMAINS:
            continue
        if domain not in STANDARD_DOMAINS or not known(kind, "" if domain == "ai.onnx" else domain):
            foreign.append(_name((domain, kind)))
    return tuple(sorted(foreign))


def _name(key: tuple[str, str]) -> str:
    domain, kind = key
    return kind if domain in ("", "ai.onnx") else f"{domain}::{kind}"


def _versions(model: Any, opsets: Mapping[str, int]) -> dict[str, str | int]:
    found: dict[str, str | int] = {"opset": opsets.get("", opsets.get("ai.onnx", 0))}
    found.update({f"opset {name}": number for name, number in opsets.items() if name not in ("", "ai.onnx")})
    found["ir_version"] = model.ir_version
    producer = f"{model.producer_name} {model.producer_version}".strip()
    if producer:
        found["producer"] = producer
    return found


def _notes(opsets: Mapping[str, int]) -> Iterator[str]:
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    newest = native().defs.schema_version_map()[""][1]
    if 0 < opset < OLDEST_OPSET:
        yield f"opset {opset} is older than {OLDEST_OPSET}, the oldest that ONNX Runtime supports"
    if opset > newest:
        yield f"opset {opset} is newer than {newest}, the newest that the installed onnx knows"
