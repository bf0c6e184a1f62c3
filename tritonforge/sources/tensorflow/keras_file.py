"""A Keras file: ``.keras`` of Keras 3, or the legacy HDF5 file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.archive import member, open_archive
from tritonforge.sources.tensorflow import keras_model
from tritonforge.sources.tensorflow.code import named_objects
from tritonforge.sources.tensorflow.framework import keras
from tritonforge.sources.tensorflow.hdf5 import model_config, refuse_links
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
_CONFIG_LIMIT: Final = 64 * 2**20
_LOADS_FILES: Final = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")


def load(folder: Path, recipe: Mapping[str, Any]) -> Loaded:
    """Load the model without its training state. Python code inside the file is never run.

    Raises:
        CheckFailed: there is not one Keras file, it is broken, or holds layers that are code or that nobody named.
    """
    file = find(folder)
    place = Place(file)
    refuse_code(_config(file, place), place)
    with named_objects(folder, recipe.get("custom_objects") or {}, place) as objects:
        try:
            model = keras().saving.load_model(str(file), custom_objects=objects, compile=False, safe_mode=True)
            before = len(model.variables)
            loaded = keras_model.load(model, recipe, place)
            if len(model.variables) != before:
                # Keras leaves layers that were not built yet as they are, with a warning alone.
                model.load_weights(str(file))
        except CheckFailed:
            raise
        except Exception as error:  # Keras raises whatever a layer's `from_config` raises
            raise _refused(error, place) from None
        return loaded


def find(folder: Path) -> Path:
    """The one Keras file of a source.

    Raises:
        CheckFailed: there is none, or several.
    """
    files = sorted(path for path in (folder / "model").rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if len(files) != 1:
        raise CheckFailed(
            "a Keras source is one file",
            place=Place(folder / "model"),
            expected="a name that ends with .keras, .h5 or .hdf5",
            found=", ".join(path.name for path in files) or "none",
        )
    return files[0]


def refuse_code(config: Any, place: Place) -> None:
    """Refuse a configuration whose layers are Python code, or that reads files when it is loaded.

    Raises:
        CheckFailed: with the layers' names.
    """
    found = []
    for item in _objects(config):
        kind, own = str(item.get("class_name")), item.get("config")
        name = str(own.get("name", kind)) if isinstance(own, dict) else kind
        if kind in ("Lambda", "__lambda__"):
            found.append(f"{name} (Lambda)")
        elif kind in _LOADS_FILES:
            found.append(f"{name} ({kind})")
        elif isinstance(own, dict) and isinstance(own.get("vocabulary"), str):
            found.append(f"{name} ({kind} that reads {own['vocabulary']!r})")
    if found:
        raise CheckFailed(
            "the file has layers that are Python code or read other files, which are never run from a file",
            place=place,
            found=", ".join(sorted(set(found))[:8]),
            hint="replace a Lambda by a layer class (`tensorflow: {code, custom_objects}`) or by `keras.ops` in a "
            "functional model, or export a SavedModel where the model was made (`model.export(path)`)",
        )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every serialised object of a configuration."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _config(file: Path, place: Place) -> Any:
    try:
        if file.suffix == ".keras":
            with open_archive(file) as archive:
                text = member(archive, "config.json", _CONFIG_LIMIT)
                if "model.weights.h5" in archive.namelist():
                    with archive.open("model.weights.h5") as stream:
                        refuse_links(stream, place)
        else:
            refuse_links(file, place)
            text = model_config(file, place).encode()
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckFailed(f"{file.name} has no readable configuration", place=place, found=str(error)) from None


def _refused(error: Exception, place: Place) -> CheckFailed:
    text = first_lines(error)
    hint = None
    if "custom object" in text or "Unknown layer" in text or "Could not locate" in text:
        hint = "name its class with `tensorflow: {custom_objects: {NAME: PACKAGE.MODULE:CLASS}, code: {PATH: SOURCE}}`"
    elif place.file is not None and place.file.suffix != ".keras":
        hint = (
            "Keras 3 reads most files of Keras 2; if not this one, load it where it was made (Keras 2, or the package "
            "tf_keras) and give the SavedModel that `model.export(path)` writes"
        )
    return CheckFailed(f"Keras {keras().__version__} cannot load the file", place=place, found=text, hint=hint)
