"""Look at a Keras model: layers from its configuration, weights from its HDF5 file.

Source: Keras ``saving_lib`` (the ``.keras`` archive) and ``legacy_h5_format`` (``.h5``).
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, Place
from tritonforge.sources.archive import member, open_archive
from tritonforge.sources.look.facts import Dim, Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes
from tritonforge.sources.look.torch_types import name_of
from tritonforge.sources.stored_member import StoredMember
from tritonforge.sources.torch_file import json_object

_CONFIG_LIMIT: Final = 64 * 2**20
_DATASETS_LIMIT: Final = 200_000


@dataclass(frozen=True, slots=True)
class _Saved:
    types: Counter[str]
    bytes: int


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of a ``.keras`` archive or an ``.h5`` file.

    Raises:
        CheckFailed: truncated or malformed.
        EnvironmentLacks: an ``.h5`` file, and h5py is not installed.
        UsageError: an axis that the model does not have.
    """
    place = Place(path)
    notes: list[str] = []
    saved: _Saved | None
    if zipfile.is_zipfile(path):
        with open_archive(path) as archive:
            config = json_object(member(archive, "config.json", _CONFIG_LIMIT), Place(path, field="config.json"))
            names = archive.namelist()
            about = (
                json_object(member(archive, "metadata.json", 2**20), Place(path, field="metadata.json"))
                if "metadata.json" in names
                else {}
            )
            saved = None
            if "model.weights.h5" in names:
                try:
                    saved = _archived(archive, path)
                except EnvironmentLacks as error:
                    notes.append(f"parameters are not counted: {error.message} ({error.hint})")
    else:
        config, about, saved = _hdf5_file(path)
    if not config:
        notes.append("the file holds weights alone: the code that made the model is needed")
    if any(name == "Lambda" for name, _ in _layers(config)):
        notes.append("a Lambda layer holds code, which loading the model would run")
    layers = [layer for layer in _layers(config) if layer[0] != "InputLayer"]
    inputs = tuple(_inputs(config))
    custom = sorted({name for name, module in layers if module is not None and not module.startswith("keras")})
    return ModelFacts(
        format="keras",
        path=path,
        files={path.name: path.stat().st_size},
        inputs=inputs or None,
        outputs=tuple(_outputs(config)) or None,
        sizes=axis_sizes(dynamic_axes(inputs), axes, place),
        parameters=None if saved is None else saved.types.total(),
        weight_types={} if saved is None else dict(saved.types.most_common()),
        operators=dict(Counter(name for name, _ in layers).most_common()),
        custom=tuple(custom),
        memory=None if saved is None else Memory(saved.bytes),
        versions={key: str(value)[:100] for key, value in about.items()},
        notes=tuple(notes),
    )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise EnvironmentLacks(
            "h5py is not installed", expected="h5py, to read HDF5", hint="pip install 'tritonforge[tensorflow]'"
        ) from None
    return h5py


def _archived(archive: zipfile.ZipFile, path: Path) -> _Saved:
    h5py = _h5py()
    with StoredMember(archive, "model.weights.h5") as stream:
        try:
            with h5py.File(stream, "r") as file:
                return _saved(file, h5py)
        except OSError as error:
            raise _damaged(path, error) from None


def _hdf5_file(path: Path) -> tuple[dict[str, Any], dict[str, Any], _Saved]:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            said = file.attrs.get("model_config")
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
            config = json_object(text.encode(), Place(path, field="model_config")) if text else {}
            about = {key: str(file.attrs[key]) for key in ("keras_version", "backend") if key in file.attrs}
            return config, about, _saved(file, h5py)
    except (OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CheckFailed:
    return CheckFailed(
        f"{path.name} is truncated or no HDF5 file of Keras",
        place=Place(path),
        expected="HDF5",
        found=str(error)[:200],
        hint="save it again",
    )


def _saved(file: Any, h5py: Any) -> _Saved:
    """Types and sizes of all datasets but an optimizer's; only their headers are read."""
    types: Counter[str] = Counter()
    size = seen = 0
    waiting = [("", file)]
    while waiting:
        name, group = waiting.pop()
        for key in group:
            seen += 1
            if seen > _DATASETS_LIMIT:
                raise CheckFailed("the HDF5 file has too many entries", expected=f"at most {_DATASETS_LIMIT}")
            if group.get(key, getlink=True).__class__ is not h5py.HardLink:
                continue  # links lead to other files or in circles
            full = f"{name}/{key}"
            if (
                full.startswith(("/optimizer", "/_optimizer", "/top_level_model_weights/iteration"))
                or "seed_generator" in full
            ):
                continue
            item = group[key]
            if isinstance(item, h5py.Group):
                if full.count("/") < 100:
                    waiting.append((full, item))
            elif isinstance(item, h5py.Dataset) and item.dtype.kind in "fiuV":
                types[name_of(item.dtype.name)] += int(item.size)
                size += int(item.size) * int(item.dtype.itemsize)
    return _Saved(types, size)


def _layers(config: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Class and module of every layer, those of nested models too."""
    waiting: list[Any] = [config]
    while waiting:
        item = waiting.pop()
        inner = item.get("config") if isinstance(item, dict) else None
        if not isinstance(inner, dict):
            continue
        layers = inner.get("layers")
        if isinstance(layers, list):
            waiting.extend(reversed(layers))
        elif isinstance(item.get("class_name"), str):
            registered = item.get("registered_name")
            module = item.get("module")
            foreign = module is None and isinstance(registered, str) and ">" in registered
            yield item["class_name"][:200], registered if foreign else module


def _inputs(config: Mapping[str, Any]) -> Iterator[TensorFacts]:
    inner = config.get("config")
    for layer in inner.get("layers", ()) if isinstance(inner, dict) else ():
        said = layer.get("config") if isinstance(layer, dict) else None
        if isinstance(said, dict) and layer.get("class_name") == "InputLayer":
            shape = said.get("batch_shape") or said.get("batch_input_shape")
            name = str(said.get("name", ""))[:200]
            dtype = said.get("dtype", "float32")
            yield TensorFacts(name, name_of(str(dtype)[:40]), _shape(shape, name))


def _shape(value: Any, name: str) -> tuple[Dim, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(dim if isinstance(dim, int) else f"?{name}.{axis}" for axis, dim in enumerate(value))


def _outputs(config: Mapping[str, Any]) -> Iterator[TensorFacts]:
    """Names of the output layers; a configuration has no shapes for them."""
    inner = config.get("config")
    if not isinstance(inner, dict):
        return
    said = inner.get("output_layers")
    if isinstance(said, list):
        items = [said] if said and isinstance(said[0], str) else said
        names = [str(item[0])[:200] for item in items if isinstance(item, list) and item]
    else:
        layers = [layer for layer in inner.get("layers", ()) if isinstance(layer, dict)]
        last = layers[-1].get("config") if layers else None
        names = [str(last.get("name", ""))[:200]] if isinstance(last, dict) else []
    for name in names:
        yield TensorFacts(name, "unknown")
