"""TensorFlow's GraphDef, read from the wire format: operators, constants, placeholders. No TensorFlow is imported.

Source: ``tensorflow/core/framework/graph.proto``, ``node_def.proto``, ``attr_value.proto``, ``function.proto``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod

from tritonforge.sources.look.facts import Dim, TensorFacts
from tritonforge.sources.look.tf_types import NO_WEIGHTS, bytes_of, name_of, shape_of
from tritonforge.sources.wire import Buffer, fields, integer, text


@dataclass(slots=True)
class Graph:
    """What a GraphDef holds; ``weights`` and ``weight_bytes`` are those of constants inside it."""

    operators: Counter[str] = field(default_factory=Counter)
    functions: dict[str, int] = field(default_factory=dict)
    placeholders: list[TensorFacts] = field(default_factory=list)
    weights: Counter[str] = field(default_factory=Counter)
    weight_bytes: int = 0
    variables: int = 0
    loose: dict[str, str] = field(default_factory=dict)
    """Nodes whose value nobody reads, with their operators: the outputs of a frozen graph."""
    version: int = 0


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    kind: str
    inputs: tuple[str, ...]
    attributes: dict[str, tuple[int, int]]


def read_graph(data: Buffer, at: int, end: int) -> Graph:
    """The GraphDef in ``data[at:end]``.

    Raises:
        Damaged: it is none.
    """
    graph = Graph()
    for number, _, start, stop in fields(data, at, end):
        if number == 1:
            _add(data, _node(data, start, stop), graph, top=True)
        elif number == 2:
            for inner, _, begin, to in fields(data, start, stop):
                if inner == 1:
                    _function(data, begin, to, graph)
        elif number == 4:
            for inner, _, begin, to in fields(data, start, stop):
                if inner == 1:
                    graph.version = integer(data, begin, to)
    return graph


def _node(data: Buffer, at: int, end: int) -> _Node:
    name = kind = ""
    inputs: list[str] = []
    attributes: dict[str, tuple[int, int]] = {}
    for number, _, start, stop in fields(data, at, end):
        if number == 1:
            name = text(data, start, stop)
        elif number == 2:
            kind = text(data, start, stop)
        elif number == 3:
            inputs.append(text(data, start, stop))
        elif number == 5:
            key, value = "", (0, 0)
            for inner, _, begin, to in fields(data, start, stop):
                if inner == 1:
                    key = text(data, begin, to)
                elif inner == 2:
                    value = (begin, to)
            attributes[key] = value
    return _Node(name, kind, tuple(inputs), attributes)


def _add(data: Buffer, node: _Node, graph: Graph, *, top: bool) -> None:
    graph.operators[node.kind] += 1
    if node.kind == "Const" and "value" in node.attributes:
        _constant(data, *node.attributes["value"], graph)
    elif node.kind in ("VarHandleOp", "VariableV2", "Variable"):
        graph.variables += 1
    if not top:
        return
    if node.kind == "Placeholder":
        graph.placeholders.append(_placeholder(data, node))
    for name in node.inputs:
        graph.loose.pop(name.lstrip("^").partition(":")[0], None)
    if node.kind not in ("Const", "Placeholder", "NoOp"):
        graph.loose[node.name] = node.kind


def _function(data: Buffer, at: int, end: int, graph: Graph) -> None:
    name, nodes = "", 0
    for number, _, start, stop in fields(data, at, end):
        if number == 1:
            for inner, _, begin, to in fields(data, start, stop):
                if inner == 1:
                    name = text(data, begin, to)
        elif number == 3:
            nodes += 1
            _add(data, _node(data, start, stop), graph, top=False)
    graph.functions[name] = nodes


def _constant(data: Buffer, at: int, end: int, graph: Graph) -> None:
    for number, _, start, stop in fields(data, at, end):
        if number != 8:
            continue
        kind = 0
        shape: tuple[Dim, ...] | None = ()
        for inner, _, begin, to in fields(data, start, stop):
            if inner == 1:
                kind = integer(data, begin, to)
            elif inner == 2:
                shape = shape_of(data, begin, to, "")
        count = prod(dim for dim in shape or () if isinstance(dim, int))
        graph.weight_bytes += count * bytes_of(kind)
        if shape and name_of(kind) not in NO_WEIGHTS and kind != 3:
            graph.weights[name_of(kind)] += count


def _placeholder(data: Buffer, node: _Node) -> TensorFacts:
    datatype = "unknown"
    shape: tuple[Dim, ...] | None = None
    if "dtype" in node.attributes:
        for number, _, start, stop in fields(data, *node.attributes["dtype"]):
            if number == 6:
                datatype = name_of(integer(data, start, stop))
    if "shape" in node.attributes:
        for number, _, start, stop in fields(data, *node.attributes["shape"]):
            if number == 7:
                shape = shape_of(data, start, stop, node.name)
    return TensorFacts(node.name, datatype, shape)
