"""A SavedModel, by one of its signatures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines, trace
from tritonforge.sources.tensorflow.operators import called_functions, refuse

FILE: Final = "saved_model.pb"
_SERVING: Final = "serving_default"
_LARGEST: Final = 2**31 - 1
"""Protobuf's own limit."""


def load(folder: Path, recipe: Mapping[str, Any]) -> Loaded:
    """Load one signature. No Python of the model runs; its operators are checked before TensorFlow sees it.

    Raises:
        CheckFailed: no SavedModel, no or several signatures, tensors that are not dense, operators that reach out, or
            TensorFlow refuses it.
    """
    tf = tensorflow()
    root = folder / "model"
    place = Place(root / FILE)
    graph = _meta_graph(_parse(root), recipe.get("tags"), place)
    name = _choose(graph, recipe.get("signature"), place)
    signature = graph.signature_def[name]
    names = recipe.get("names") or {}
    inputs = _ordered(signature.inputs, names.get("inputs"))
    outputs = _ordered(signature.outputs, names.get("outputs"))
    roots = [info.name for info in signature.outputs.values()]
    assets = [item.tensor_info.name.split(":")[0] for item in graph.asset_file_def]
    refuse(graph.graph_def, roots, place, assets)
    try:
        model = tf.saved_model.load(str(root), tags=list(graph.meta_info_def.tags))
    except Exception as error:  # a broken protobuf, a missing shard and an unknown operator have no class in common
        raise CheckFailed(
            "TensorFlow cannot load the SavedModel",
            place=place,
            found=f"{type(error).__name__}: {first_lines(error)}",
            expected=f"a whole folder: {FILE} with variables/ and assets/ as they were saved",
        ) from None
    function = model.signatures[name]

    def call(*values: Any) -> list[Any]:
        found = function(**dict(zip((own for own, _ in inputs), values, strict=True)))
        return [found[own] for own, _ in outputs]

    specs = [(said, _spec(said, signature.inputs[own], place)) for own, said in inputs]
    for own, said in outputs:
        _spec(said, signature.outputs[own], place)
    return trace(call, specs, [said for _, said in outputs], model, place)


def chosen(folder: Path, recipe: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The name of the signature that a recipe means, and the tags of its graph.

    Raises:
        CheckFailed: as :func:`load`.
    """
    place = Place(folder / "model" / FILE)
    graph = _meta_graph(_parse(folder / "model"), recipe.get("tags"), place)
    return _choose(graph, recipe.get("signature"), place), list(graph.meta_info_def.tags)


def _ordered(tensors: Mapping[str, Any], names: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """The signature's own names with those that they get here: a SavedModel keeps no order, so it is by name."""
    if names is not None:
        return [(own, said) for said, own in names.items()]

    def parts(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    return [(name, name) for name in sorted(tensors, key=parts)]


def _parse(root: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = root / FILE
    place = Place(file)
    if not file.is_file():
        raise CheckFailed(
            "this is no SavedModel",
            place=Place(root),
            expected=f"a folder with {FILE}",
            hint="`saved_model.pbtxt` must be saved again in binary form"
            if (root / "saved_model.pbtxt").exists()
            else None,
        )
    if file.stat().st_size > _LARGEST:
        raise CheckFailed(f"{FILE} is larger than a protobuf can be", place=place, found=f"{file.stat().st_size} bytes")
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise CheckFailed(f"{FILE} is truncated or no SavedModel", place=place, found=str(error)) from None
    if not model.meta_graphs:
        raise CheckFailed(f"{FILE} holds no graph", place=place, expected="a SavedModel")
    return model


def _meta_graph(model: Any, tags: Sequence[str] | None, place: Place) -> Any:
    wanted = ["serve"] if tags is None else list(tags)
    for graph in model.meta_graphs:
        if sorted(graph.meta_info_def.tags) == sorted(wanted):
            return graph
    have = ["[" + ", ".join(sorted(graph.meta_info_def.tags)) + "]" for graph in model.meta_graphs]
    raise CheckFailed(
        "the SavedModel has no graph with these tags",
        place=place,
        expected=f"[{', '.join(wanted)}]",
        found=", ".join(have),
        hint="say which with `tensorflow: {tags: […]}`",
    )


def _choose(graph: Any, asked: str | None, place: Place) -> str:
    found = {name: item for name, item in graph.signature_def.items() if not name.startswith("__") and item.outputs}
    if asked is not None:
        if asked not in found:
            raise CheckFailed(
                f"the SavedModel has no signature '{asked}'", place=place, hint=did_you_mean(asked, found)
            )
        return asked
    if not found:
        raise CheckFailed(
            "the SavedModel has no signature",
            place=place,
            hint="save it with one: `tf.saved_model.save(model, path, signatures={'serving_default': "
            "model.call.get_concrete_function(tf.TensorSpec(…))})`, or with Keras `model.export(path)`",
        )
    if len(found) == 1:
        return str(next(iter(found)))
    if _SERVING in found and all(_same(graph, found[_SERVING], item) for item in found.values()):
        return _SERVING  # Keras exports its first endpoint once more under this name
    raise CheckFailed(
        "the signature is ambiguous: the SavedModel has several",
        place=place,
        expected="one name under `tensorflow: {signature: …}`",
        found=", ".join(sorted(found)),
        details=[f"{name}: {_outline(item)}" for name, item in sorted(found.items())],
    )


def _same(graph: Any, one: Any, other: Any) -> bool:
    if _outline(one) != _outline(other):
        return False
    functions = [
        {key: called_functions(graph.graph_def, info.name) for key, info in signature.outputs.items()}
        for signature in (one, other)
    ]
    return functions[0] == functions[1] and all(functions[0].values())


def _outline(signature: Any) -> str:
    tf = tensorflow()

    def tensors(infos: Mapping[str, Any]) -> str:
        made = []
        for name, info in sorted(infos.items()):
            sizes = "?" if info.tensor_shape.unknown_rank else ",".join(str(dim.size) for dim in info.tensor_shape.dim)
            made.append(f"{name} {tf.as_dtype(info.dtype).name}[{sizes}]")
        return ", ".join(made)

    return f"({tensors(signature.inputs)}) → ({tensors(signature.outputs)})"


def _spec(name: str, info: Any, place: Place) -> Any:
    tf = tensorflow()
    encoding = info.WhichOneof("encoding")
    if encoding != "name":
        raise CheckFailed(
            f"'{name}' is a {'sparse' if encoding == 'coo_sparse' else 'composite'} tensor",
            place=place,
            expected="dense tensors: Triton carries nothing else",
        )
    return tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype))
