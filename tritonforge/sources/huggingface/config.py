"""The JSON files beside a Hugging Face model, read as data that may be hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.huggingface.files import PICKLED_WEIGHTS, SAFE_WEIGHTS, matching
from tritonforge.sources.torch_file import read

MODEL: Final = "model"
"""The folder of a source's artifact that holds the model's own files."""

_LIMIT: Final = 64 * 2**20


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file.

    Raises:
        CheckFailed: it is no JSON object, or larger than any such file.
    """
    if not path.is_file():
        return {}
    place = Place(path)
    if path.stat().st_size > _LIMIT:
        raise CheckFailed(f"{path.name} is too large", place=place, expected=f"at most {_LIMIT} bytes")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckFailed(f"{path.name} is not JSON", place=place, found=str(error)) from None
    if not isinstance(found, dict):
        raise CheckFailed(f"{path.name} holds no object", place=place, found=type(found).__name__)
    return found


def network_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a network that transformers knows by itself.

    Raises:
        CheckFailed: it is missing, names no architecture, or wants code or kernels that do not come with transformers.
    """
    path = folder / "config.json"
    config = read_json(path)
    place = Place(path)
    if not isinstance(config.get("model_type"), str):
        raise CheckFailed(
            "this is no model of transformers",
            place=place,
            expected="a config.json with `model_type`",
            found=", ".join(sorted(config)[:6]) or "no config.json",
        )
    if config.get("quantization_config"):
        kind = config["quantization_config"]
        raise CheckFailed(
            "these weights are quantised for one library's own kernels, which do not export",
            place=place,
            found=str(kind.get("quant_method", "unknown") if isinstance(kind, dict) else kind),
            hint="give the model that was not quantised, and let `quantize:` do it",
        )
    return config


def architecture(config: Mapping[str, Any]) -> str | None:
    """The class that the weights were saved from."""
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def weights(folder: Path) -> bool:
    """Whether the weights are safetensors (True) or a pickle that holds nothing but tensors (False).

    Raises:
        CheckFailed: there are none, some are missing, or a pickle names anything but tensors.
    """
    names = sorted(path.name for path in folder.iterdir())
    for patterns, safe in ((SAFE_WEIGHTS, True), (PICKLED_WEIGHTS, False)):
        found = matching(names, patterns)
        files = [name for name in found if not name.endswith(".json")]
        if not files:
            continue
        for index in (name for name in found if name.endswith(".json")):
            shards = read_json(folder / index).get("weight_map")
            wanted = sorted({str(name) for name in (shards or {}).values()}) if isinstance(shards, dict) else []
            missing = [name for name in wanted if name not in files]
            if missing:
                raise CheckFailed(
                    "a part of the weights is missing", place=Place(folder / index), expected=", ".join(missing[:3])
                )
        if not safe:
            for name in files:
                _only_tensors(folder / name)
        return safe
    raise CheckFailed(
        "the model has no weights",
        place=Place(folder),
        expected="model.safetensors (or its parts with their index), or pytorch_model.bin",
        found=", ".join(names[:8]),
        hint="weights of TensorFlow, Flax or GGUF are saved again with transformers' `save_pretrained`",
    )


def _only_tensors(path: Path) -> None:
    kind = read(path).kind
    if kind != "torch-weights":
        raise CheckFailed(
            "this pickle would run code when it is loaded",
            place=Place(path),
            expected="tensors alone",
            found=kind,
            hint="get the model's safetensors, or convert it where you trust it: "
            "`model.save_pretrained(FOLDER)` writes them",
        )
