"""Look at a frozen TensorFlow graph (``.pb``)."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes
from tritonforge.sources.look.tf_graph import read_graph
from tritonforge.sources.wire import Damaged


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the graph; its outputs are the nodes that nobody reads, for a GraphDef names none.

    Raises:
        CheckFailed: empty, truncated or no GraphDef.
        UsageError: an axis that the model does not have.
    """
    size = path.stat().st_size
    if size == 0:
        raise CheckFailed(f"{path.name} is empty", place=Place(path), expected="a frozen GraphDef", found="0 bytes")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            graph = read_graph(data, 0, size)
        except Damaged as error:
            raise _bad(path, f"{size} bytes that do not parse ({error})") from None
    if not graph.operators or "" in graph.operators:
        raise _bad(path, "no nodes with an operator")
    inputs = tuple(graph.placeholders)
    problems = (f"{graph.variables} variables have no values here: the graph is not frozen",) if graph.variables else ()
    return ModelFacts(
        format="graphdef",
        path=path,
        files={path.name: size},
        inputs=inputs,
        outputs=tuple(TensorFacts(name, "unknown") for name in graph.loose),
        sizes=axis_sizes(dynamic_axes(inputs), axes, Place(path)),
        parameters=graph.weights.total(),
        weight_types=dict(graph.weights.most_common()),
        operators=dict(graph.operators.most_common()),
        functions=graph.functions,
        memory=Memory(graph.weight_bytes),
        versions={"producer": graph.version} if graph.version else {},
        problems=problems,
        notes=("a GraphDef names no outputs: those shown are the nodes that no other node reads",),
    )


def _bad(path: Path, found: str) -> CheckFailed:
    return CheckFailed(
        f"{path.name} is truncated or no TensorFlow graph",
        place=Place(path),
        expected="a GraphDef",
        found=found,
        hint="an ONNX model is told by its suffix .onnx, a SavedModel is a folder",
    )
