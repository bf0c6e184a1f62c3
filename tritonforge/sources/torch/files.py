"""What a file is when it is not what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.formats import detect

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


def not_expected(path: Path, expected: str, error: Exception | None = None) -> CheckFailed:
    """The error for a file that is something else than it was taken for."""
    kind = detect(path)
    what, hint = _WHAT.get(kind or "", ("a file that is no PyTorch model, or a damaged one", "export it again"))
    reason = "" if error is None else f" ({' '.join(str(error).split())[:300]})"
    return CheckFailed(
        f"{path.name} is not {expected}", place=Place(path), expected=expected, found=f"{what}{reason}", hint=hint
    )
