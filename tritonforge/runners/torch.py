"""Runs ``torch`` artifacts, the sources of PyTorch models, as PyTorch itself does: eagerly, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import Tensors
from tritonforge.runners.torch_tensors import last_line, ordered, shapes, to_numpy
from tritonforge.sources.torch.load import as_positional, load_module

if TYPE_CHECKING:
    import numpy as np


class TorchRunner:
    """A module, called by its signature's names."""

    def __init__(self, module: Any, recipe: Mapping[str, Any], signature: Signature) -> None:
        import torch

        self.title = f"torch {torch.__version__}"
        self.signature = signature
        self.module = as_positional(module, recipe, signature)

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        import torch

        fed = ordered(self.signature, inputs)
        try:
            with torch.no_grad():
                answers = self.module(*fed)
        except CheckFailed:
            raise
        except Exception as error:  # a module raises whatever it likes
            raise CheckFailed(
                "PyTorch cannot run the module", found=f"{last_line(error)} with {shapes(inputs)}"
            ) from None
        return {tensor.name: to_numpy(value) for tensor, value in zip(self.signature.outputs, answers, strict=True)}


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> TorchRunner:
    """Load the module of an artifact's recipe. PyTorch has nothing to optimise when it runs eagerly."""
    import torch

    assert artifact.signature is not None
    torch.set_num_threads(threads)
    recipe = artifact.metadata["recipe"]
    return TorchRunner(load_module(folder, recipe), recipe, artifact.signature)
