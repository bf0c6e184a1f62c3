"""The distributions whose versions a step's result depends on, by what it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RUNNERS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("onnxruntime",),
    "torch": ("torch",),
    "huggingface": ("torch", "transformers"),
    "torchscript": ("torch",),
    "aoti": ("torch",),
    "torch-compile": ("torch",),
    "tensorflow": ("tensorflow",),
    "openvino": ("openvino",),
}


def runner_tools(format_: str) -> tuple[str, ...]:
    """What the runner of a format stands on."""
    return _RUNNERS.get(format_, ())
