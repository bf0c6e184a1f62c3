"""Runs ``aoti`` artifacts: packages that AOTInductor compiled ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import Tensors
from tritonforge.runners.torch_tensors import flat, last_line, ordered, shapes, to_numpy

if TYPE_CHECKING:
    import numpy as np

MODEL: Final = "model.pt2"


class AotiRunner:
    """A loaded package.

    It is fed and answers by the names that the artifact's source has, since those are the names of the reference
    cases; names as they are served (``metadata["names"]``: source's → served) are taken as well.
    """

    def __init__(self, package: Any, artifact: Artifact, place: Place) -> None:
        import torch

        assert artifact.signature is not None
        names = artifact.metadata.get("names") or {}
        self.title = f"aotinductor {torch.__version__}"
        self.package = package
        self.signature: Signature = artifact.signature
        self.inputs: Mapping[str, str] = names.get("inputs", {})
        self.outputs: Mapping[str, str] = {served: name for name, served in names.get("outputs", {}).items()}
        self.place = place

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        import torch

        as_served = all(self.signature.input(name) is not None for name in inputs)
        renamed = inputs if as_served else {self.inputs.get(name, name): array for name, array in inputs.items()}
        named = {} if as_served else self.outputs
        try:
            with torch.inference_mode():
                found = flat(self.package(*ordered(self.signature, renamed)))
            return {
                named.get(tensor.name, tensor.name): to_numpy(value)
                for tensor, value in zip(self.signature.outputs, found, strict=True)
            }
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise CheckFailed(
                "the AOTInductor package cannot be run",
                place=self.place,
                found=f"{last_line(error)} with {shapes(inputs)}",
            ) from None


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> AotiRunner:
    """Open ``model.pt2``; it is compiled already, so that ``optimise`` changes nothing."""
    import torch

    torch.set_num_threads(threads)
    file = folder / str(artifact.metadata.get("file", MODEL))
    try:
        package = torch._inductor.aoti_load_package(str(file))
    except (RuntimeError, OSError) as error:
        raise CheckFailed(
            f"PyTorch {torch.__version__} cannot load {file.name}",
            place=Place(file),
            found=last_line(error),
            hint="a package runs on the kind of processor, and with the version of PyTorch, that it was made with",
        ) from None
    return AotiRunner(package, artifact, Place(file))
