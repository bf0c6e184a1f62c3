"""Runs Python artifacts that compile a PyTorch module, with the very loader that is served."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import Tensors
from tritonforge.runners.torch_tensors import last_line, shapes, to_numpy, to_torch

if TYPE_CHECKING:
    import numpy as np

LOADER: Final = "forge_torch.py"
CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"


class TorchCompileRunner:
    """A module as the artifact's own ``forge_torch.py`` loaded and compiled it."""

    def __init__(self, served: Any, signature: Signature, place: Place) -> None:
        import torch

        how = "eager" if served.mode == "off" else f"torch.compile, mode {served.mode}"
        self.title = f"torch {torch.__version__} ({how})"
        self.served = served
        self.signature = signature
        self.place = place

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        fed = {
            tensor.name: to_torch(tensor, inputs[tensor.name])
            for tensor in self.signature.inputs
            if tensor.name in inputs
        }
        try:
            with _compiling_into(self.served.cache):
                return {name: to_numpy(value) for name, value in self.served.run(fed).items()}
        except CheckFailed:
            raise
        except Exception as error:  # the compiler and the user's code raise what they like
            raise CheckFailed(
                "the module cannot be run", place=self.place, found=f"{last_line(error)} with {shapes(inputs)}"
            ) from None


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> TorchCompileRunner:
    """Load the artifact's module by its own loader; without ``optimise`` it is not compiled."""
    import torch

    assert artifact.signature is not None
    torch.set_num_threads(threads)
    place = Place(folder)
    spec = importlib.util.spec_from_file_location(f"forge_torch_{artifact.digest[:16]}", folder / LOADER)
    assert spec is not None and spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    try:
        with _compiling_into(os.environ.get(CACHE)):
            served = loader.Served(folder, mode=None if optimise else "off", warm=False)
    except Exception as error:  # the user's code raises what it likes
        raise CheckFailed("the module cannot be loaded", place=place, found=last_line(error)) from None
    return TorchCompileRunner(served, artifact.signature, place)


@contextmanager
def _compiling_into(folder: str | None) -> Iterator[None]:
    """The compiler's folder while one model is loaded or run: another one in this process has another."""
    before = os.environ.get(CACHE)
    if folder is not None:
        os.environ[CACHE] = folder
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CACHE, None)
        else:
            os.environ[CACHE] = before
