"""The work and the memory of one inference of an ONNX model, told from its graph alone.

Shapes come from ONNX's own shape inference on a model without weights, after every dynamic axis was given a size.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from tritonforge.sources.look.facts import Flops
from tritonforge.sources.look.onnx_flops import RULES, UNCOUNTED, Call, Shape, UnknownShape
from tritonforge.sources.look.onnx_light import messages, native
from tritonforge.sources.look.onnx_types import bytes_of

_INLINED_LIMIT: Final = 2_000_000
"""Nodes after inlining; functions that call functions can grow without end."""

_READS_VALUES: Final = frozenset(
    {
        "AffineGrid", "BlackmanWindow", "CenterCropPad", "Col2Im", "ConstantOfShape", "DFT", "Expand",
        "HammingWindow", "HannWindow", "If", "Loop", "MaxUnpool", "MelWeightMatrix", "OneHot", "Pad", "Range",
        "Reshape", "Resize", "STFT", "Scan", "SequenceMap", "Slice", "Split", "SplitToSequence", "Squeeze", "Tile",
        "TopK", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
"""Operators of ONNX whose schemas call a shape, axes, sizes or counts an input."""

_VALUE_LIMIT: Final = 2**62


@dataclass(frozen=True, slots=True)
class Cost:
    """``activations`` is the most bytes alive at once when nodes run in the order of the file, nothing in place.

    ``unsized`` counts values without a known shape, which ``activations`` lacks.
    """

    flops: Flops | None
    activations: int | None
    unsized: int
    notes: tuple[str, ...]


def cost(model: Any, constants: Mapping[str, Shape], sizes: Mapping[str, int]) -> Cost:
    """What one inference takes. ``model`` gets ``sizes`` written into its inputs; ``constants`` are its weights."""
    notes: list[str] = []
    for value in model.graph.input:
        fix_axes(value, sizes)
    try:
        inferred = _inferred(model)
    except _TooDeep as error:
        return Cost(None, None, 0, (f"work and memory are not told: {error}",))
    except Exception as error:  # whatever the native part says of a graph that it cannot follow
        notes.append(f"shape inference failed ({str(error).strip().splitlines()[0][:160]}): what follows is partial")
        inferred = model
    shapes: dict[str, Shape] = dict(constants)
    bytes_by_name: dict[str, int] = {}
    _read_shapes(inferred.graph, sizes, shapes, bytes_by_name)
    if any(name and name not in shapes for node in inferred.graph.node for name in node.output):
        from tritonforge.sources.look.onnx_forward import complete

        complete(inferred, shapes, bytes_by_name)
    counted: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    nested = _count(inferred.graph.node, sizes, shapes, counted, unknown, notes)
    if nested:
        notes.append("the memory of subgraphs (If, Loop, Scan) is not part of the estimate")
    activations, unsized = _peak(inferred.graph, constants, bytes_by_name)
    flops = Flops(sum(counted.values()), dict(counted.most_common()), dict(unknown.most_common()))
    return Cost(flops, activations, unsized, tuple(dict.fromkeys(notes)))


class _TooDeep(ValueError):
    pass


def _inferred(model: Any) -> Any:
    data = model.SerializeToString()
    if model.functions:
        _check_functions(model)
        data = native().inliner.inline_local_functions(data, False)
    # Following values costs as much again as following shapes.
    values = any(_reads_values(node.op_type) for part in (model.graph, *model.functions) for node in part.node)
    return messages().ModelProto.FromString(native().shape_inference.infer_shapes(data, False, False, values))


def _reads_values(kind: str) -> bool:
    """Whether the operator's output shape can depend on the values of an input."""
    return kind in _READS_VALUES or kind.startswith("Reduce")


def _check_functions(model: Any) -> None:
    """Refuse functions that call themselves or grow without end: the inliner would not come back."""
    bodies = {(item.domain, item.name): [(node.domain, node.op_type) for node in item.node] for item in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    for start in bodies:
        waiting = [start]
        open_: set[tuple[str, str]] = set()
        while waiting:
            name = waiting[-1]
            if name in sizes:
                waiting.pop()
                continue
            inner = [call for call in bodies[name] if call in bodies]
            todo = [call for call in inner if call not in sizes]
            if any(call in open_ or call == name for call in todo):
                raise _TooDeep(f"the function {name[1]} calls itself")
            if todo:
                open_.add(name)
                waiting.extend(dict.fromkeys(todo))
                continue
            sizes[name] = len(bodies[name]) + sum(sizes[call] for call in inner)
            open_.discard(name)
            waiting.pop()
            if sizes[name] > _INLINED_LIMIT:
                raise _TooDeep(f"the function {name[1]} has {sizes[name]} nodes when inlined")
    called = sum(sizes.get((node.domain, node.op_type), 0) for node in model.graph.node)
    if called > _INLINED_LIMIT:
        raise _TooDeep(f"the graph has {called} nodes when inlined")


def fix_axes(value: Any, sizes: Mapping[str, int]) -> None:
    """Write the sizes of dynamic axes into an input."""
    if value.type.WhichOneof("value") != "tensor_type":
        return
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0:
            size = sizes.get(dim.dim_param or f"?{value.name}.{axis}")
            if size is not None:
                dim.dim_value = size


def _read_shapes(
    graph: Any, sizes: Mapping[str, int], shapes: MutableMapping[str, Shape], size: dict[str, int]
) -> None:
    for values in (graph.input, graph.value_info, graph.output):
        for value in values:
            tensor = value.type.tensor_type
            element = tensor.elem_type
            if not element or not tensor.HasField("shape"):
                continue
            shape = []
            for dim in tensor.shape.dim:
                known = dim.dim_value or sizes.get(dim.dim_param, -1)
                if known < 0 or (known == 0 and not dim.HasField("dim_value")):
                    break
                shape.append(known)
            else:
                name = value.name
                shapes[name] = found = tuple(shape)
                size[name] = min(bytes_of(element, prod(found)), _VALUE_LIMIT)


def _count(
    nodes: Iterable[Any],
    sizes: Mapping[str, int],
    shapes: MutableMapping[str, Shape],
    counted: Counter[str],
    unknown: Counter[str],
    notes: list[str],
) -> bool:
    """Add up the work of ``nodes``; whether any of them has a subgraph."""
    nested = False
    for node in nodes:
        kind = node.op_type
        domain = node.domain
        key = ("" if domain == "ai.onnx" else domain, kind)
        rule = RULES.get(key)
        if rule is not None:
            try:
                counted[kind] += rule(Call(node, shapes))
            except UnknownShape:
                unknown[kind] += 1
        elif key in UNCOUNTED:
            unknown[kind] += 1
        elif kind in ("If", "Loop", "Scan") and not key[0]:
            nested = True
            _count_within(node, sizes, shapes, counted, unknown, notes)
    return nested


def _count_within(
    node: Any,
    sizes: Mapping[str, int],
    shapes: MutableMapping[str, Shape],
    counted: Counter[str],
    unknown: Counter[str],
    notes: list[str],
) -> None:
    """Of an If the costlier branch counts, of a Loop or Scan one round."""
    branches = []
    for item in node.attribute:
        if item.HasField("g"):
            inner = ChainMap({}, shapes)  # a copy for each of many branches would be slow
            _read_shapes(item.g, sizes, inner, {})
            for weight in item.g.initializer:
                inner[weight.name] = tuple(weight.dims)
            work: Counter[str] = Counter()
            _count(item.g.node, sizes, inner, work, unknown, notes)
            branches.append(work)
    if branches:
        counted.update(max(branches, key=lambda work: sum(work.values())))
    if any(branches):
        notes.append(f"of {node.op_type} {'the costlier branch' if node.op_type == 'If' else 'one round'} is counted")


def _peak(graph: Any, constants: Mapping[str, Shape], size: Mapping[str, int]) -> tuple[int | None, int]:
    """The most bytes alive between two nodes, and how many values have no known size."""
    born: dict[str, int] = {value.name: 0 for value in graph.input if value.name not in constants}
    last: dict[str, int] = {}
    count = 0
    for index, node in enumerate(graph.node):
        last.update(dict.fromkeys(node.input, index))
        for name in node.output:
            born.setdefault(name, index)
        count = index + 1
    born.pop("", None)  # an output that is left out
    last.update(dict.fromkeys((value.name for value in graph.output), count))
    comes, goes = [0] * (count + 1), [0] * (count + 1)
    unsized = 0
    for name, index in born.items():
        bytes_ = size.get(name)
        if bytes_ is None:
            unsized += 1
            continue
        comes[index] += bytes_
        goes[last.get(name, index)] += bytes_
    now = peak = 0
    for come, go in zip(comes, goes, strict=True):
        now += come
        peak = max(peak, now)
        now -= go
    return (None if unsized and not peak else peak), unsized
