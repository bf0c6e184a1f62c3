"""A checkpoint, restored into the model that a factory makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow import keras_model, object_graph
from tritonforge.sources.tensorflow.code import code_of, find
from tritonforge.sources.tensorflow.framework import keras, tensorflow
from tritonforge.sources.tensorflow.hdf5 import refuse_links
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines, trace


def load(folder: Path, recipe: Mapping[str, Any]) -> Loaded:
    """Make the model with the factory, and fill every variable of it from the checkpoint.

    The checkpoint is TensorFlow 2's (``NAME.index``), of the model itself or of a ``tf.train.Checkpoint`` that holds
    it under a name, or Keras's ``.weights.h5``.

    Raises:
        CheckFailed: no factory, it fails, or variables do not fit: they are listed.
    """
    files = sorted(path for path in (folder / "model").rglob("*") if path.suffix in (".index", ".h5"))
    place = Place(files[0] if files else folder / "model")
    target = recipe.get("factory")
    if target is None:
        raise CheckFailed(
            "a checkpoint alone is no model",
            place=place,
            expected="the function that makes the model it belongs to",
            hint="name it with `tensorflow: {factory: PACKAGE.MODULE:NAME, code: {PATH: SOURCE}}`",
        )
    with code_of(folder):
        factory = find(target, place)
        try:
            _count_layers_anew()
            model = factory(**dict(recipe.get("arguments") or {}))
        except Exception as error:  # the user's own code
            raise CheckFailed(
                f"the factory '{target}' fails", place=place, found=f"{type(error).__name__}: {first_lines(error)}"
            ) from None
        is_keras = isinstance(model, keras().Model)
        if not is_keras and not isinstance(model, tensorflow().Module):
            raise CheckFailed(
                f"the factory '{target}' gives a {type(model).__name__}",
                place=place,
                expected="a keras.Model or a tf.Module",
            )
        # Variables of a subclass come to be when it is called first.
        loaded = keras_model.load(model, recipe, place) if is_keras else _module(model, recipe, place)
        _restore(model, folder / "model", is_keras)
        return loaded


def _count_layers_anew() -> None:
    """Keras numbers layers without a name over a whole process: outputs would be called otherwise each time."""
    import keras

    keras.backend.clear_session(free_memory=False)


def _module(model: Any, recipe: Mapping[str, Any], place: Place) -> Loaded:
    """The module's ``__call__``, or the method that ``signature`` names."""
    tf = tensorflow()
    name = recipe.get("signature") or "__call__"
    method = getattr(model, name, None)
    if method is None:
        raise CheckFailed(f"{type(model).__name__} has no method '{name}'", place=place, hint="name it: `signature`")
    stated = getattr(method, "input_signature", None)
    python = getattr(method, "python_function", method)
    if stated and all(isinstance(item, tf.TensorSpec) for item in stated):
        import inspect

        arguments = [item for item in inspect.signature(python).parameters if item != "self"]
        inputs = [(item.name or argument, item) for argument, item in zip(arguments, stated, strict=False)]
        call = method
    else:
        inputs = keras_model.declared_inputs(
            recipe.get("declared") or {}, place, f"{type(model).__name__}.{name} has no input signature"
        )
        call = keras_model.by_arguments(python, method, [item for item, _ in inputs])
    names: list[str] = []

    def flat(*values: Any) -> Sequence[Any]:
        found = call(*values)
        names[:] = list(found) if isinstance(found, Mapping) else []
        return keras_model.flat_outputs(found)

    loaded = trace(flat, inputs, None, model, place)
    outputs = names or [str(item) for item in (recipe.get("declared") or {}).get("outputs") or ()]
    if len(outputs) != len(loaded.outputs):
        return loaded
    return Loaded(loaded.function, loaded.inputs, tuple(outputs), model, place)


def _restore(model: Any, folder: Path, is_keras: bool) -> None:
    weights = sorted(folder.rglob("*.h5"))
    if weights and is_keras:
        refuse_links(weights[0], Place(weights[0]))
        try:
            model.load_weights(str(weights[0]))
        except Exception as error:  # Keras raises whatever a layer raises
            raise CheckFailed(
                "the weights do not fit the model", place=Place(weights[0]), found=first_lines(error)
            ) from None
        return
    _restore_objects(model, _prefix(folder))


def _prefix(folder: Path) -> Path:
    indices = sorted(folder.rglob("*.index"))
    if len(indices) > 1 and (folder / "checkpoint").is_file():
        latest = tensorflow().train.latest_checkpoint(str(folder))
        indices = [index for index in indices if latest is not None and str(index) == f"{latest}.index"] or indices
    if len(indices) != 1:
        raise CheckFailed(
            "the source is not one checkpoint",
            place=Place(folder),
            expected="NAME.index with its NAME.data-*",
            found=", ".join(path.name for path in indices) or "no .index",
            hint="give a folder with one checkpoint" if indices else None,
        )
    return indices[0].with_suffix("")


def _restore_objects(model: Any, prefix: Path) -> None:
    tf = tensorflow()
    place = Place(prefix.with_name(f"{prefix.name}.index"))
    found = object_graph.fit(object_graph.of_model(model, place), object_graph.read(prefix, place))
    # `read`, because `restore` asks for the counter that only `save` writes.
    checkpoint = tf.train.Checkpoint(**{found.holder: model}) if found.holder else tf.train.Checkpoint(model)
    try:
        checkpoint.read(str(prefix)).assert_existing_objects_matched().expect_partial()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        counted = f"{len(found.missing)} variables are missing, {len(found.wrong)} have another shape"
        raise CheckFailed(
            "the checkpoint does not fit the model that the factory makes",
            place=place,
            found=counted if found.missing or found.wrong else first_lines(error),
            details=[
                *[f"not in the checkpoint: {text}" for text in found.missing[:6]],
                *[f"in the checkpoint {text}" for text in found.wrong[:6]],
                *[f"not in the model: {text}" for text in found.unused[:6]],
            ],
            hint="give the factory the arguments that the model was trained with (`tensorflow.arguments`)",
        ) from None
