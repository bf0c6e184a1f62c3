"""Look at a TensorFlow SavedModel: signatures, operators, variables.

Source: ``tensorflow/core/protobuf/saved_model.proto`` and ``meta_graph.proto``.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes, files_below
from tritonforge.sources.look.tensor_bundle import Variable, variables
from tritonforge.sources.look.tf_graph import Graph, read_graph
from tritonforge.sources.look.tf_types import name_of, shape_of
from tritonforge.sources.wire import Buffer, Damaged, fields, integer, text

_INITIALIZERS = "__saved_model_init_op"

Signatures = dict[str, tuple[list[TensorFacts], list[TensorFacts]]]


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the first meta graph; the signature is ``serving_default``, or the first by name.

    Raises:
        CheckFailed: empty, truncated or no SavedModel.
        UsageError: an axis that the model does not have.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / "saved_model.pb"
    size = file.stat().st_size
    if size == 0:
        raise CheckFailed("saved_model.pb is empty", place=Place(file), expected="a SavedModel", found="0 bytes")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _first_meta_graph(data, size)
        except Damaged as error:
            raise _bad(file, f"{size} bytes that do not parse ({error})") from None
    if found is None:
        raise _bad(file, "no meta graph")
    graph, signatures, version = found
    chosen = "serving_default" if "serving_default" in signatures else min(signatures, default="")
    inputs, outputs = signatures.get(chosen, ([], []))
    notes = [f"of the signatures {', '.join(sorted(signatures))}, {chosen} is shown"] if len(signatures) > 1 else []
    problems = [] if signatures else ["the SavedModel has no signature: a server cannot tell its inputs and outputs"]
    weights, weight_bytes = Counter(graph.weights), graph.weight_bytes
    index = folder / "variables" / "variables.index"
    if index.is_file():
        for variable in _once(variables(index)):
            if not variable.is_training_state:
                weight_bytes += variable.size
            if variable.is_weight:
                weights[variable.datatype] += variable.elements
    elif graph.variables:
        problems.append(f"variables/variables.index is missing, and the graph has {graph.variables} variables")
    return ModelFacts(
        format="savedmodel",
        path=path,
        files=files_below(folder),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        sizes=axis_sizes(dynamic_axes(inputs), axes, Place(file)),
        parameters=weights.total(),
        weight_types=dict(weights.most_common()),
        operators=dict(graph.operators.most_common()),
        functions=graph.functions,
        memory=Memory(weight_bytes),
        versions={"tensorflow": version} if version else {},
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _once(saved: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """Keras' ``ExportArchive`` saves each variable twice: in ``variables``, and again in ``_all_variables``."""
    if not any(item.name.startswith("variables/") for item in saved):
        return saved
    return tuple(item for item in saved if not item.name.startswith("_all_variables/"))


def _bad(file: Path, found: str) -> CheckFailed:
    return CheckFailed(
        "saved_model.pb is truncated or no SavedModel",
        place=Place(file),
        expected="a SavedModel with a meta graph",
        found=found,
        hint="export it again",
    )


def _first_meta_graph(data: Buffer, size: int) -> tuple[Graph, Signatures, str] | None:
    for number, _, start, stop in fields(data, 0, size):
        if number == 2:
            graph, version = Graph(), ""
            signatures: Signatures = {}
            for inner, _, begin, end in fields(data, start, stop):
                if inner == 1:
                    for info, _, at, to in fields(data, begin, end):
                        if info == 5:
                            version = text(data, at, to)
                elif inner == 2:
                    graph = read_graph(data, begin, end)
                elif inner == 5:
                    _signature(data, begin, end, signatures)
            return graph, signatures, version
    return None


def _signature(data: Buffer, at: int, end: int, signatures: Signatures) -> None:
    name = ""
    inputs: list[TensorFacts] = []
    outputs: list[TensorFacts] = []
    for number, _, start, stop in fields(data, at, end):
        if number == 1:
            name = text(data, start, stop)
        elif number == 2:
            for inner, _, begin, to in fields(data, start, stop):
                if inner in (1, 2):
                    (inputs if inner == 1 else outputs).append(_tensor(data, begin, to))
    if name != _INITIALIZERS:
        signatures[name] = (sorted(inputs, key=str), sorted(outputs, key=str))


def _tensor(data: Buffer, at: int, end: int) -> TensorFacts:
    name, kind, where = "", 0, None
    for number, _, start, stop in fields(data, at, end):
        if number == 1:
            name = text(data, start, stop)
        elif number == 2:
            for inner, _, begin, to in fields(data, start, stop):
                if inner == 2:
                    kind = integer(data, begin, to)
                elif inner == 3:
                    where = (begin, to)
    return TensorFacts(name, name_of(kind), () if where is None else shape_of(data, *where, name))
