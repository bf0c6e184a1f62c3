"""Which of a source's files is the model, and what it is when it is not what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.formats import detect

MODEL: Final = "model"
CODE: Final = "code"
WEIGHTS: Final = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
"""Suffixes of files that hold weights."""

_WHAT: Final = {
    "torchscript": ("a TorchScript module", "it needs no `torch.module`: give the file as the `source` alone"),
    "torch-export": ("a torch.export program", "it needs no `torch.module`: give the file as the `source` alone"),
    "aoti": ("an AOTInductor package, compiled code", "give the model that it was compiled from"),
    "torch-weights": (
        "a state dict: weights without the network",
        "name the module that it belongs to: `torch: {module: PACKAGE.MODULE:NAME}`",
    ),
    "torch-pickle": (
        "a pickled Python object",
        "save a state dict (`torch.save(model.state_dict(), PATH)`) or a program (`torch.export.save`) instead",
    ),
    "onnx": ("an ONNX model", "drop `torch:` and give the file as the `source`"),
    "keras": ("a Keras model", "drop `torch:` and give the file as the `source`"),
    "safetensors": ("weights in safetensors", "name the module that they belong to with `torch: {module: …}`"),
}


def model_file(folder: Path, suffixes: Sequence[str]) -> Path:
    """The one file of ``folder/model`` that is the model.

    Raises:
        CheckFailed: there is none, or there are several with such a suffix.
    """
    files = sorted(path for path in (folder / MODEL).rglob("*") if path.is_file())
    fitting = files if len(files) == 1 else [path for path in files if path.suffix.lower() in suffixes]
    if len(fitting) != 1:
        raise CheckFailed(
            "the source has no file that is the model" if not fitting else "the source has several models",
            expected=f"one file ({', '.join(suffixes)})",
            found=", ".join(path.name for path in (fitting or files)[:5]) or "an empty folder",
            hint="name the file itself as the `source`",
        )
    return fitting[0]


def not_expected(path: Path, expected: str, error: Exception | None = None) -> CheckFailed:
    """The error for a file that is something else than it was taken for."""
    kind = detect(path)
    what, hint = _WHAT.get(kind or "", ("a file that is no PyTorch model, or a damaged one", "export it again"))
    reason = "" if error is None else f" ({' '.join(str(error).split())[:300]})"
    return CheckFailed(
        f"{path.name} is not {expected}", place=Place(path), expected=expected, found=f"{what}{reason}", hint=hint
    )
