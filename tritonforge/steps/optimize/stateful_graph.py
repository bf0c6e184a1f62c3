"""Edits of an ONNX graph that give it states: each changes the graph in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.signature import Tensor
from tritonforge.errors import CheckFailed, Place

if TYPE_CHECKING:
    import onnx

_OLDEST: Final = 10
"""``Slice`` takes its bounds as inputs from opset 10 on."""
_IR_WITH_PLAIN_INITIALIZERS: Final = 4
"""From here on an initializer need not be an input as well."""
_END: Final = (1 << 63) - 1


def oldest_opset(model: onnx.ModelProto, place: Place) -> None:
    """Refuse an opset that lacks what the edits use.

    Raises:
        CheckFailed: it is older than 10.
    """
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST:
        raise CheckFailed(
            "a graph of this opset cannot be given states",
            place=place,
            expected=f"opset {_OLDEST} or newer",
            found=f"opset {opset}",
            hint="export it again, or convert it (onnx.version_converter)",
        )


def value_info(tensor: Tensor) -> Any:
    """A tensor as a graph states it; axes without a name of their own stay nameless."""
    from onnx import helper

    shape = [None if isinstance(dim, str) and dim.startswith("?") else dim for dim in tensor.shape]
    return helper.make_tensor_value_info(tensor.name, BY_NAME[tensor.datatype].onnx, shape)


def make_constant(model: onnx.ModelProto, name: str, array: Any) -> None:
    """Give the input ``name`` one value. It stays among the graph's inputs until those are written anew."""
    from onnx import numpy_helper

    model.ir_version = max(model.ir_version, _IR_WITH_PLAIN_INITIALIZERS)
    for index, item in enumerate(model.graph.initializer):
        if item.name == name:
            del model.graph.initializer[index]
            break
    if array.dtype.kind == "O":
        array = array.astype(str).astype(object)
    model.graph.initializer.append(numpy_helper.from_array(array, name))


def add_context(model: onnx.ModelProto, name: str, state: str, after: str, width: int, rank: int) -> None:
    """Put ``state`` in front of the input ``name`` on the last axis; the last ``width`` values become ``after``."""
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    whole, bounds = f"{name}_with_context", f"{name}_context_bounds"
    _rename_uses(graph, name, whole)
    for part, value in (("starts", -width), ("ends", _END), ("axes", rank - 1)):
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"{bounds}_{part}"))
    parts = [f"{bounds}_{part}" for part in ("starts", "ends", "axes")]
    _insert_first(graph, helper.make_node("Concat", [state, name], [whole], f"{whole}_concat", axis=rank - 1))
    graph.node.append(helper.make_node("Slice", [whole, *parts], [after], f"{after}_slice"))


def move_batch_first(
    model: onnx.ModelProto, before: tuple[str, str], after: tuple[str, str], axis: int | None, rank: int
) -> None:
    """Feed the state ``before[0]`` from a new input ``before[1]``, and likewise ``after``, with the batch axis first.

    Where it stands first already, or there is none, the tensors get other names alone.
    """
    from onnx import helper

    graph = model.graph
    if not axis:
        _insert_first(graph, helper.make_node("Identity", [before[1]], [before[0]], f"{before[1]}_name"))
        graph.node.append(helper.make_node("Identity", [after[0]], [after[1]], f"{after[1]}_name"))
        return
    others = [place for place in range(rank) if place != axis]
    back = [0 if place == axis else others.index(place) + 1 for place in range(rank)]
    _insert_first(graph, helper.make_node("Transpose", [before[1]], [before[0]], f"{before[1]}_transpose", perm=back))
    forth = [axis, *others]
    graph.node.append(helper.make_node("Transpose", [after[0]], [after[1]], f"{after[1]}_transpose", perm=forth))


def _insert_first(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    graph.node.insert(0, node)


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every node read ``new`` instead of ``old``, in subgraphs too where they have no ``old`` of their own."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                own = {item.name for item in inner.input} | {item.name for item in inner.initializer}
                if old not in own:
                    _rename_uses(inner, old, new)
