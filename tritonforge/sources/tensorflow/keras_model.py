"""A Keras model in memory, as one traced function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tritonforge.artifact.signature import Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow.framework import keras, tensorflow
from tritonforge.sources.tensorflow.loaded import Loaded, tensor_type, trace, unique


def load(model: Any, recipe: Mapping[str, Any], place: Place) -> Loaded:
    """Trace the model's inference path (``training=False``).

    Functional and sequential models know their inputs; for others the spec states them (``recipe["declared"]``).
    Outputs are called as the layers that make them, or as the keys of the dictionary that the model gives.

    Raises:
        CheckFailed: the inputs are known neither to the model nor to the spec.
    """
    known = _known(model)
    declared = recipe.get("declared") or {}
    if known is None:
        inputs = declared_inputs(declared, place, "the Keras model does not know its inputs (it is a subclass)")
        call = by_arguments(model.call, model, [name for name, _ in inputs], training=False)
    else:
        inputs, structure = known

        def call(*values: Any) -> Any:
            return model(keras().tree.pack_sequence_as(structure, list(values)), training=False)

    names: list[str] = []

    def flat(*values: Any) -> Sequence[Any]:
        found = call(*values)
        names[:] = list(found) if isinstance(found, Mapping) else _layers(model)
        return flat_outputs(found)

    loaded = trace(flat, inputs, None, model, place, _ranges(model, [name for name, _ in inputs]))
    stated = [str(name) for name in declared.get("outputs") or ()]
    if known is None and stated and not names:
        names = stated
    if len(names) != len(loaded.outputs):
        return loaded
    return Loaded(loaded.function, loaded.inputs, tuple(unique(names)), model, place, loaded.ranges)


def declared_inputs(declared: Mapping[str, Any], place: Place, message: str) -> list[tuple[str, Any]]:
    """The inputs that the spec states, as ``tf.TensorSpec``.

    Raises:
        CheckFailed: it states none.
    """
    tf = tensorflow()
    if not declared.get("inputs"):
        raise CheckFailed(
            message,
            place=place,
            expected="`inputs: {NAME: TYPE[dims]}` in the spec, called as the arguments",
        )
    made = []
    for tensor in (Tensor(*item) for item in declared["inputs"]):
        shape = [size if isinstance(size, int) else None for size in tensor.shape]
        made.append((tensor.name, tf.TensorSpec(shape, tensor_type(tensor.datatype))))
    return made


def by_arguments(method: Any, function: Any, names: Sequence[str], **fixed: Any) -> Callable[..., Any]:
    """A call that hands flat values over by the arguments' names where they agree, else in order.

    A single argument takes a single value as it is, and several ones as a dictionary by their names.
    """
    parameters = {
        name: item
        for name, item in inspect.signature(method).parameters.items()
        if name not in ("self", "training") and item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
    }
    takes = inspect.signature(method).parameters
    more = {name: value for name, value in fixed.items() if name in takes}
    required = [name for name, item in parameters.items() if item.default is item.empty]

    def call(*values: Any) -> Any:
        if set(names) <= set(parameters):
            return function(**dict(zip(names, values, strict=True)), **more)
        if len(values) > 1 and len(required) == 1:
            return function(dict(zip(names, values, strict=True)), **more)
        return function(*values, **more)

    return call


def flat_outputs(found: Any) -> list[Any]:
    """Tensors in the model's order: values of a dictionary as it has them, leaves of other structures in order."""
    if isinstance(found, Mapping):
        return list(found.values())
    flat: list[Any] = tensorflow().nest.flatten(found)
    return [value for value in flat if value is not None]


def _known(model: Any) -> tuple[list[tuple[str, Any]], Any] | None:
    """Names and types of the inputs, and the structure that the model is called with."""
    tf = tensorflow()
    try:
        inputs = list(model.inputs or ())
    except (AttributeError, ValueError):
        return None
    if not inputs:
        return None
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = inputs[0] if len(inputs) == 1 else inputs
    if isinstance(structure, Mapping) and len(structure) == len(inputs):
        # Trees of Keras are flattened by sorted keys.
        names = sorted(structure)
        inputs = [structure[name] for name in names]
    else:
        inputs = keras().tree.flatten(structure)
        names = unique([item.name for item in inputs])
    specs = [tf.TensorSpec(item.shape, tf.as_dtype(item.dtype)) for item in inputs]
    return list(zip(names, specs, strict=True)), structure


def _layers(model: Any) -> list[str]:
    names = getattr(model, "output_names", None)
    if names is None:
        names = getattr(getattr(model, "_functional", None), "output_names", None)
    return list(names or ())


def _ranges(model: Any, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Indices that an embedding right behind an input can look up."""
    found: dict[str, dict[str, float]] = {}
    for layer in getattr(model, "layers", ()):
        if type(layer).__name__ != "Embedding":
            continue
        try:
            feeding = layer.input.name
        except (AttributeError, ValueError):
            continue
        if feeding in names:
            found[feeding] = {"low": 0, "high": int(layer.input_dim) - 1}
    return found
