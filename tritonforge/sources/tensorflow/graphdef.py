"""A frozen graph (``.pb``): a ``GraphDef`` whose weights are constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines, trace, unique
from tritonforge.sources.tensorflow.operators import refuse

_NO_OUTPUT: Final = ("NoOp", "Const", "Placeholder", "PlaceholderWithDefault", "Assert", "Print", "PrintV2")
_VARIABLES: Final = ("VarHandleOp", "VariableV2", "Variable", "ReadVariableOp")


def load(folder: Path, recipe: Mapping[str, Any]) -> Loaded:
    """Load the graph between its inputs and outputs: those that are named, else placeholders and what nothing reads.

    A tensor ``NAME:0`` is called ``NAME`` here, and ``NAME:1`` is ``NAME_1``.

    Raises:
        CheckFailed: no ``GraphDef``, variables that are not frozen, unknown tensors, operators that reach out.
    """
    tf = tensorflow()
    file = _find(folder)
    place = Place(file)
    graph = _parse(file, place)
    inputs = _tensors(recipe.get("inputs"), [node.name for node in graph.node if node.op == "Placeholder"])
    outputs = _tensors(recipe.get("outputs"), _unread(graph))
    if not outputs or not inputs:
        raise CheckFailed(
            f"the graph has no {'outputs' if not outputs else 'inputs'}",
            place=place,
            hint="name them with `tensorflow: {inputs: [x:0], outputs: [Identity:0]}`",
        )
    refuse(graph, outputs, place)
    variables = sorted({node.name for node in graph.node if node.op in _VARIABLES})
    if variables:
        raise CheckFailed(
            "the graph is not frozen: it has variables without values",
            place=place,
            found=", ".join(variables[:4]),
            hint="freeze it (`convert_variables_to_constants_v2`), or give the SavedModel or the checkpoint",
        )
    try:
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        known = wrapped.graph
        feeds = [_tensor(known, name, place) for name in inputs]
        function = wrapped.prune(feeds, [_tensor(known, name, place) for name in outputs])
    except (ValueError, tf.errors.OpError) as error:
        raise CheckFailed("TensorFlow cannot load the graph", place=place, found=first_lines(error)) from None
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in feeds]
    names = unique([_plain(name) for name in inputs])

    def call(*values: Any) -> list[Any]:
        found = function(*values)
        return list(found) if isinstance(found, list | tuple) else [found]

    return trace(call, list(zip(names, specs, strict=True)), unique(list(map(_plain, outputs))), function, place)


def _find(folder: Path) -> Path:
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    graphs = [path for path in files if path.suffix == ".pb"] or files
    if len(graphs) != 1:
        raise CheckFailed(
            "a frozen graph is one file",
            place=Place(folder / "model"),
            found=", ".join(path.name for path in graphs) or "none",
        )
    return graphs[0]


def _parse(file: Path, place: Place) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    try:
        graph.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise CheckFailed(f"{file.name} is truncated or no GraphDef", place=place, found=str(error)) from None
    if not graph.node:
        raise CheckFailed(f"{file.name} holds no graph", place=place, expected="a frozen GraphDef")
    return graph


def _tensors(named: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    return [name if ":" in name else f"{name}:0" for name in (default if named is None else named)]


def _unread(graph: Any) -> list[str]:
    read = {name.split(":")[0].lstrip("^") for node in graph.node for name in node.input}
    return [node.name for node in graph.node if node.name not in read and node.op not in _NO_OUTPUT]


def _tensor(graph: Any, name: str, place: Place) -> Any:
    try:
        return graph.get_tensor_by_name(name)
    except (KeyError, ValueError):
        known = [operation.name for operation in graph.get_operations()]
        raise CheckFailed(
            f"the graph has no tensor '{name}'", place=place, hint=did_you_mean(name.split(":")[0], known)
        ) from None


def _plain(name: str) -> str:
    node, _, port = name.partition(":")
    return node if port == "0" else f"{node}_{port}"
