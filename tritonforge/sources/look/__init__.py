"""What a model's file says of itself: one module a format, each with ``look(path, axes) -> ModelFacts``.

No weights are read, no pickle is executed, and no framework is imported. May import only what ``sources`` may.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tritonforge.sources.look.facts import ModelFacts

_MODULES: Final = {
    "onnx": "onnx",
    "python": "python_model",
    "torchscript": "torchscript",
    "torch-export": "torch_export",
    "aoti": "aoti",
    "torch-weights": "torch_weights",
    "torch-pickle": "torch_weights",
    "savedmodel": "savedmodel",
    "keras": "keras",
    "graphdef": "graphdef",
    "tf-checkpoint": "tf_checkpoint",
    "huggingface": "huggingface",
    "openvino": "openvino",
}


def look(kind: str, path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Look at ``path``, which has the format ``kind``; ``axes`` gives dynamic axes their sizes.

    Raises:
        UsageError: an axis that the model does not have.
        CheckFailed: the file is damaged.
        EnvironmentLacks: reading the format needs a package that is not installed.
    """
    found: ModelFacts = importlib.import_module(f"{__name__}.{_MODULES[kind]}").look(path, axes)
    return found
