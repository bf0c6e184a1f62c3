"""The graph of objects that a TensorFlow 2 checkpoint holds, and how that of a model fits it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.loaded import first_lines

_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_ROOT: Final = ""


@dataclass(frozen=True, slots=True)
class ObjectGraph:
    """``nodes`` is a ``TrackableObjectGraph``'s list; ``shapes`` are of the stored values by their key."""

    nodes: Any
    shapes: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Fit:
    """``holder`` is the name under which the checkpoint holds the model, empty where it is the model itself.

    The rest are lines about variables, by their paths in the model.
    """

    holder: str
    found: int
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    unused: tuple[str, ...]


def read(prefix: Path, place: Place) -> ObjectGraph:
    """The objects of a checkpoint.

    Raises:
        CheckFailed: it cannot be read, or has no objects (TensorFlow 1).
    """
    tf = tensorflow()
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {key: list(shape) for key, shape in reader.get_variable_to_shape_map().items()}
        text = reader.get_tensor(_GRAPH) if _GRAPH in shapes else None
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise CheckFailed(
            "the checkpoint cannot be read",
            place=place,
            found=first_lines(error),
            expected="NAME.index beside every NAME.data-*",
        ) from None
    if text is None:
        raise CheckFailed(
            "this is a checkpoint by variable names, of TensorFlow 1",
            place=place,
            found=", ".join(sorted(shapes)[:4]),
            hint="restore it where it was made and save a SavedModel, or `tf.train.Checkpoint(model=…).save(path)`",
        )
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(text)
    return ObjectGraph(graph.nodes, shapes)


def of_model(model: Any, place: Place) -> ObjectGraph:
    """The objects of a model in memory, as a checkpoint of it would have them."""
    with tempfile.TemporaryDirectory(prefix="tritonforge-") as folder:
        return read(Path(tensorflow().train.Checkpoint(model).write(f"{folder}/own")), place)


def fit(model: ObjectGraph, saved: ObjectGraph) -> Fit:
    """How the model's variables are found in the checkpoint, at the place where most of them are."""
    holders = [(_ROOT, 0), *((child.local_name, child.node_id) for child in saved.nodes[0].children)]
    return max((_fit(model, saved, name, start) for name, start in holders), key=lambda found: found.found)


def _fit(model: ObjectGraph, saved: ObjectGraph, holder: str, start: int) -> Fit:
    missing, wrong = [], []
    used: set[str] = set()
    todo: list[tuple[str, int, int | None]] = [("", 0, start)]
    seen = {0}
    while todo:
        path, own, other = todo.pop(0)
        for value in model.nodes[own].attributes:
            shape = model.shapes[value.checkpoint_key]
            there = {} if other is None else {item.name: item.checkpoint_key for item in saved.nodes[other].attributes}
            key = there.get(value.name)
            if key is None or key not in saved.shapes:
                missing.append(f"{path} {shape}")
            elif saved.shapes[key] != shape:
                wrong.append(f"{path} is {saved.shapes[key]} instead of {shape}")
                used.add(key)
            else:
                used.add(key)
        known = {} if other is None else {child.local_name: child.node_id for child in saved.nodes[other].children}
        for child in model.nodes[own].children:
            if child.node_id not in seen:
                seen.add(child.node_id)
                below = f"{path}/{child.local_name}".lstrip("/")
                todo.append((below, child.node_id, known.get(child.local_name)))
    unused = tuple(f"{path} {shape}" for path, shape in _values(saved, start, used))
    return Fit(holder, len(used), tuple(missing), tuple(wrong), unused)


def _values(graph: ObjectGraph, start: int, but: set[str]) -> list[tuple[str, list[int]]]:
    """Stored values below a node, by path, without those of an optimizer."""
    found = []
    todo, seen = [("", start)], {start}
    while todo:
        path, node = todo.pop(0)
        for value in graph.nodes[node].attributes:
            if value.checkpoint_key in graph.shapes and value.checkpoint_key not in but:
                found.append((path, graph.shapes[value.checkpoint_key]))
        for child in graph.nodes[node].children:
            if child.node_id not in seen and child.local_name not in ("optimizer", "save_counter"):
                seen.add(child.node_id)
                todo.append((f"{path}/{child.local_name}".lstrip("/"), child.node_id))
    return found
