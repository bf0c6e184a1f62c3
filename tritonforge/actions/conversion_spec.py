"""A conversion as the spec that it stands for: one model, one line, in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.errors import ForgeError, Place, SpecError, UsageError, did_you_mean
from tritonforge.sources.formats import detect
from tritonforge.spec.document import Document
from tritonforge.spec.load import LoadedSpec, checked
from tritonforge.spec.models import ModelSpec

WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "onnx": {"backend": "onnxruntime"},
    "onnxruntime": {"backend": "onnxruntime"},
    "ort": {"backend": "onnxruntime", "onnxruntime": {"format": "ort"}},
    "pytorch": {"backend": "pytorch"},
    "torchscript": {"backend": "pytorch"},
    "aoti": {"backend": "pytorch", "pytorch": {"form": "aoti"}},
    "openvino": {"backend": "openvino"},
    "python": {"backend": "python"},
}
"""What a conversion goes to: a backend, or a format of one; and the keys of a model that say so."""

PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8")

_ELSEWHERE: Final = {
    "tensorrt": "an engine is tied to the GPU that it is built on: convert to onnx, and let the server's TensorRT "
    "build it with `onnxruntime: {accelerators: {tensorrt: true}}` in a spec",
    "tensorflow": "new releases of Triton have no tensorflow backend: convert to onnx, or to python",
    "tflite": "Triton serves no LiteRT models: convert to onnx or openvino",
}
"""What people ask for that is not made here, and what to do instead."""

_OWNED: Final = {
    "source": "that is MODEL",
    "backend": "that is --to",
    "variants": "a conversion has one result; variants need a spec: `tritonforge init`",
    "versions": "a conversion has one result; versions need a spec: `tritonforge init`",
}
"""Keys that the command line says otherwise, or that a conversion cannot have."""

_KEY: Final = re.compile(r"`(" + "|".join(sorted(ModelSpec.model_fields)) + r")[:.`]")
"""A key of a model, as messages quote it."""

_SHORT: Final = re.compile(r"(hub|package|torchvision|timm|transformers):.")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A conversion as it was asked for.

    ``model`` is a path, or a short form of a spec's `source` (`hub:ORG/NAME`, `torchvision:NAME`). ``inputs`` are
    ``NAME=TYPE[dims]`` and ``settings`` ``KEY=VALUE``, a key of a spec's model by its dotted name with a YAML value.
    """

    model: str
    to: str
    precision: str | None = None
    inputs: Sequence[str] = field(default_factory=tuple)
    settings: Sequence[str] = field(default_factory=tuple)
    allow_pickle: bool = False

    @property
    def path(self) -> Path | None:
        """Where the model lies; None where it is fetched by a name."""
        if _SHORT.match(self.model) and not Path(self.model).exists():
            return None
        return _whole(Path(self.model))

    @property
    def name(self) -> str:
        """What the result is called after: the file's name without its suffix, the folder's, or the model's own."""
        path = self.path
        if path is None:
            text = re.sub(r"@.*$", "", self.model.partition(":")[2]).rstrip("/").rpartition("/")[2]
        else:
            text = path.name if path.is_dir() else path.stem
        text = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")
        return text[:100] or "model"


def conversion_spec(wanted: Wanted) -> LoadedSpec:
    """The spec of a conversion; what it says of places is the model's.

    Raises:
        UsageError: what is asked for does not exist or does not go together.
        SpecError: a setting is none of a model.
    """
    model = _model(wanted)
    where = wanted.path
    folder = Path.cwd() if where is None else where.parent
    document = Document({"apiVersion": "tritonforge/v1", "name": "conversion", "models": {wanted.name: model}})
    document.places[()] = Place(where)
    try:
        return checked(document, folder / "forge.yaml")
    except SpecError as error:
        raise explained(error, wanted.name) from None


def explained(error: ForgeError, name: str) -> ForgeError:
    """An error that speaks of a spec's keys, with what they are on the command line."""
    place = error.place
    prefix = f"models.{name}"
    key = None
    if place is not None and place.field is not None and place.field.startswith(prefix):
        key = place.field.removeprefix(prefix).lstrip(".") or None
        error.place = Place(place.file, None, key)
    text = f"{error.expected} {error.hint}"
    if "allow_pickle" in text:
        here = "--allow-pickle"
    elif key == "backend":
        here = "--to WHAT"
    elif (key or "").startswith("inputs") or "`inputs" in text:
        here = "--input NAME=TYPE[dims]"
    elif _KEY.search(text) or (key not in (None, "source") and not error.message.startswith("unknown key")):
        here = "--set KEY=VALUE"
    else:
        return error
    error.details = (*error.details, f"on the command line: {here}")
    return error


def _model(wanted: Wanted) -> dict[str, Any]:
    way = WAYS.get(wanted.to)
    if way is None:
        raise UsageError(
            f"a model cannot be converted to '{wanted.to}'",
            expected=", ".join(WAYS),
            hint=_ELSEWHERE.get(wanted.to) or did_you_mean(wanted.to, WAYS),
        )
    where = wanted.path
    model: dict[str, Any] = {"source": wanted.model if where is None else {"path": where.name}}
    _lay(model, way)
    _lay(model, _precision(wanted, where))
    if wanted.allow_pickle:
        _lay(model, {"torch": {"allow_pickle": True}})
    for text in wanted.inputs:
        name, equals, type_ = text.rpartition("=")
        if not equals or not name or not type_:
            raise UsageError(
                f"'{text}' describes no input", expected="--input NAME=TYPE[dims], such as --input x=FP32[3,224,224]"
            )
        if name in model.setdefault("inputs", {}):
            raise UsageError(f"the input '{name}' is described twice", found=text)
        model["inputs"][name] = type_
    for text in wanted.settings:
        _set(model, text)
    return model


def _precision(wanted: Wanted, where: Path | None) -> dict[str, Any]:
    """The keys that ask for a precision.

    Raises:
        UsageError: nothing makes it of such a model.
    """
    asked = wanted.precision
    backend = WAYS[wanted.to]["backend"]
    if asked in (None, "fp32"):
        return {}
    if asked not in PRECISIONS:
        raise UsageError(f"there is no precision '{asked}'", expected=", ".join(PRECISIONS))
    if asked == "int8" and backend in ("onnxruntime", "openvino"):
        return {"quantize": {"mode": "dynamic"}}
    if asked == "fp16" and backend == "openvino":
        return {"openvino": {"compress": "fp16"}}
    hugging_face = wanted.model.startswith("hub:") if where is None else detect(where) == "huggingface"
    if asked in ("fp16", "bf16") and hugging_face and not (asked == "bf16" and backend == "onnxruntime"):
        return {"huggingface": {"dtype": asked}}
    raise UsageError(
        f"nothing here makes {asked} of this model for {wanted.to}",
        expected="int8 for onnx, onnxruntime and openvino; fp16 for openvino; fp16 and bf16 for a Hugging Face model "
        "(bf16 not for onnx)",
        hint="leave --precision out, or take another --to",
    )


def _set(model: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"'{text}' sets nothing", expected="--set KEY=VALUE, such as --set simplify=true")
    if parts[0] in _OWNED:
        raise UsageError(f"`{parts[0]}` is not to be set", found=text, hint=_OWNED[parts[0]])
    try:
        data = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(
            f"the value of '{key}' is no YAML", found=str(getattr(error, "problem", None) or error)
        ) from None
    for part in reversed(parts):
        data = {part: data}
    _lay(model, data)


def _lay(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Lay a mapping over another in place, key by key."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _lay(below[key], value)
        else:
            below[key] = dict(value) if isinstance(value, Mapping) else value


def _whole(path: Path) -> Path:
    """The whole model of what may name a part of it: a SavedModel's graph, the prefix of a checkpoint's files.

    Links are kept: a snapshot of a hub is one, and its files are told by where it stands.
    """
    absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links
    if absolute.name == "saved_model.pb" and absolute.is_file():
        return absolute.parent
    if absolute.exists() or not absolute.parent.is_dir():
        return absolute
    index = absolute.with_name(f"{absolute.name}.index")
    return index if index.is_file() else absolute
