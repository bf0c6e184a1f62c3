"""``inspect``: what a model is, what it costs, and who can serve it, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place, UsageError
from tritonforge.sources.formats import FORMATS, detect
from tritonforge.sources.look import look
from tritonforge.sources.look.facts import ModelFacts
from tritonforge.sources.look.recommend import Advice, Backend, advise, backends

_HINTS: Final = {
    ".plan": "a TensorRT engine says nothing of itself without TensorRT: inspect the ONNX that it was built from",
    ".engine": "a TensorRT engine says nothing of itself without TensorRT: inspect the ONNX that it was built from",
    ".tflite": "Triton serves no LiteRT models: inspect the SavedModel or Keras model that it was converted from",
    ".gguf": "no backend here serves GGUF: inspect the Hugging Face folder that it was converted from",
    ".pkl": "a plain pickle holds any Python object: export the model to ONNX (skl2onnx for scikit-learn)",
    ".joblib": "joblib files hold any Python object: export the model to ONNX (skl2onnx for scikit-learn)",
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found, each backend's answer, and what to serve on which machine."""

    facts: ModelFacts
    backends: tuple[Backend, ...]
    advice: tuple[Advice, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.facts.to_json(),
            "backends": [item.to_json() for item in self.backends],
            "recommendation": [item.to_json() for item in self.advice],
        }


def inspect_model(path: Path, axes: Mapping[str, int]) -> Inspection:
    """Look at the model at ``path``; ``axes`` gives dynamic axes their sizes, which are otherwise 1.

    Raises:
        UsageError: nothing is at ``path``, or the model has no such axis.
        CheckFailed: no model, or a damaged one.
        EnvironmentLacks: reading the format needs a package that is not installed.
    """
    place = Place(path)
    try:
        kind = detect(path)
        if kind is None:
            raise _no_model(path)
        facts = look(kind, path, axes)
    except PermissionError as error:
        raise UsageError("the model may not be read", place=place, found=str(error)) from None
    except OSError as error:
        raise UsageError("the model cannot be read", place=place, found=error.strerror or str(error)) from None
    answers = backends(facts)
    return Inspection(facts, answers, advise(facts, answers))


def _no_model(path: Path) -> UsageError | CheckFailed:
    place = Place(path)
    if not path.exists():
        return UsageError("there is no such file or folder", place=place, expected="a model", found=str(path))
    if path.is_dir():
        names = sorted(item.name for item in path.iterdir())
        return CheckFailed(
            "the folder holds no model",
            place=place,
            expected="saved_model.pb, model.py, Hugging Face's config.json, one .onnx, one .xml with .bin, checkpoint",
            found=(", ".join(names[:8]) + (" …" if len(names) > 8 else "")) or "an empty folder",
        )
    if not path.is_file():
        return UsageError("this is neither a file nor a folder", place=place, expected="a model", found=str(path))
    with path.open("rb") as stream:
        head = stream.read(8)
    size = path.stat().st_size
    if head.startswith(b"PK"):
        # Reading it as what it seems to be says what is wrong with it.
        from tritonforge.sources.torch_file import read

        read(path)
    if path.suffix in (".h5", ".hdf5", ".keras"):
        return CheckFailed(
            f"{path.name} is truncated or no Keras model" if size else f"{path.name} is empty",
            place=place,
            expected="HDF5, or a zip archive with config.json",
            found=f"{size} bytes that begin with {head.hex(' ')}" if size else "0 bytes",
        )
    if path.suffix in (".pt", ".pth", ".pt2", ".ckpt", ".bin", ".safetensors") and size:
        from tritonforge.sources.torch_file import read

        read(path)
    return CheckFailed(
        f"{path.name} is empty" if not size else f"{path.name} is no model that tritonforge knows",
        place=place,
        expected=f"one of the formats {', '.join(FORMATS)}",
        found=f"{size} bytes that begin with {head.hex(' ')}" if size else "0 bytes",
        hint=_HINTS.get(path.suffix),
    )
