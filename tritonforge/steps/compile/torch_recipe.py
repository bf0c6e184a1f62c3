"""How a source is loaded again by a loader that knows nothing of tritonforge: its recipe, with everything resolved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place

_WEIGHTS: Final = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LIBRARIES: Final = {"torchvision": "torchvision", "timm": "timm", "transformers": "transformers"}


def served_source(folder: Path, recipe: Mapping[str, Any], module: Any) -> dict[str, Any]:
    """What ``served_torch/forge_torch.py`` reads as ``source``; ``module`` is the loaded source.

    Raises:
        CheckFailed: the source has another number of model files than one, or a task that only tritonforge can call.
    """
    kind = recipe["kind"]
    if kind == "huggingface":
        return _huggingface(folder, recipe, module)
    given = {
        "kind": kind,
        "paths": ["code", "model"],
        "seed": 0,
        **{name: recipe.get(name) for name in ("architecture", "module", "state_key", "sample")},
        "weights": recipe.get("weights") or _own_weights(folder, recipe),
        "arguments": recipe.get("arguments") or {},
        "strict": recipe.get("strict", True),
        "allow_pickle": bool(recipe.get("allow_pickle")),
    }
    if kind in ("torchscript", "torch-export", "torch-pickle"):
        files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
        if len(files) != 1:
            raise CheckFailed(
                "the source is not one file",
                place=Place(folder),
                expected="one file",
                found=", ".join(path.name for path in files[:5]),
            )
        given["file"] = files[0].relative_to(folder).as_posix()
    return given


def _own_weights(folder: Path, recipe: Mapping[str, Any]) -> str | None:
    """The source itself, where it is a state dict with the module named beside it."""
    if not recipe.get("module"):
        return None
    files = [path for path in (folder / "model").rglob("*") if path.suffix.lower() in _WEIGHTS]
    return files[0].relative_to(folder).as_posix() if len(files) == 1 else None


def packages_of(source: Mapping[str, Any]) -> list[str]:
    """The distributions that the loader needs for a source."""
    needed = ["numpy", "torch"]
    if source["kind"] == "huggingface":
        needed += ["safetensors", "transformers"]
    else:
        if str(source["weights"] or "").endswith(".safetensors"):
            needed.append("safetensors")
        library = _LIBRARIES.get(str(source["architecture"] or "").partition(":")[0])
        if library is not None:
            needed.append(library)
    return sorted(needed)


def _huggingface(folder: Path, recipe: Mapping[str, Any], module: Any) -> dict[str, Any]:
    """The network's class and task, as the loaded source (``sources/huggingface``) told them."""
    from tritonforge.sources.huggingface.config import network_config
    from tritonforge.sources.huggingface.task import class_for

    files = folder / "model"
    network, call = module.model, module.call
    whole, _ = class_for(network_config(files), recipe.get("task"), Place(files))
    if call.task == "text-generation-with-past":
        raise CheckFailed(
            "a decoder with its cache as tensors is not served by `backend: python`",
            place=Place(folder),
            hint="serve it with `backend: onnxruntime`, or with the task text-generation",
        )
    return {
        "kind": "huggingface",
        "class": whole.__name__,
        "task": call.task,
        "outputs": list(call.outputs),
        "dtype": {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}[recipe.get("dtype", "fp32")],
        "safetensors": any(path.suffix == ".safetensors" for path in files.iterdir()),
        "attention": network.config._attn_implementation,
        "settings": {"add_pooling_layer": False} if getattr(network, "pooler", 0) is None else {},
        # What is called may be the encoder alone of what is loaded.
        "encoder": type(network) is not whole,
        "weights": None,
        "architecture": None,
    }
