"""What a runner is, and which one runs an artifact."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import InternalError

if TYPE_CHECKING:
    import numpy as np

Tensors = dict[str, "np.ndarray[Any, Any]"]
"""Arrays by tensor name; ``BYTES`` are object arrays of ``bytes``; ``BF16`` is held as float32."""


class Runner(Protocol):
    """A loaded model. ``title`` names what computes, with its version: ``onnxruntime 1.20.1``."""

    title: str

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """Answers by output name, with the batch axis where the signature has one.

        Raises:
            CheckFailed: the model cannot answer; the framework's own words and the inputs' shapes are in it.
        """


_RUNNERS: Final = {
    "onnx": "tritonforge.runners.onnx",
    "torch": "tritonforge.runners.torch",
    "torchscript": "tritonforge.runners.torchscript",
    "aoti": "tritonforge.runners.aoti",
    "torch-compile": "tritonforge.runners.torch_compile",
    "tensorflow": "tritonforge.runners.tensorflow",
    "openvino": "tritonforge.runners.openvino",
    "processor": "tritonforge.runners.processor",
}


def open_runner(artifact: Artifact, folder: Path, *, threads: int = 1, optimise: bool = True) -> Runner:
    """The runner of an artifact whose files lie in ``folder``.

    One of an artifact with states (``metadata["states"]``) takes and answers whole sequences.

    ``optimise`` is false for references: the format's own optimisations are then off, where they can be. An artifact
    whose format says little (``python``) names its runner in ``metadata["runner"]``.

    Raises:
        EnvironmentLacks: the framework is not installed.
        CheckFailed: the framework cannot load it.
    """
    name = str(artifact.metadata.get("runner", artifact.format))
    module = _RUNNERS.get(name)
    if module is None:
        raise InternalError(f"there is no runner for artifacts in '{name}'")
    opened: Runner = importlib.import_module(module).open_model(artifact, folder, threads=threads, optimise=optimise)
    if artifact.metadata.get("states") is not None:
        from tritonforge.runners.sequences import CarryingRunner

        return CarryingRunner(opened, artifact.metadata)
    return opened


def can_run(artifact: Artifact) -> bool:
    """Whether there is a runner for the artifact's format."""
    return str(artifact.metadata.get("runner", artifact.format)) in _RUNNERS
