"""Runs ``torchscript`` artifacts as Triton's pytorch backend does: inputs and outputs go where it would put them.

Source of the rules: triton-inference-server/pytorch_backend, ``src/libtorch.cc`` (naming conventions) and its README.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import Tensors
from tritonforge.runners.torch_tensors import flat, last_line, shapes, to_numpy, to_torch

if TYPE_CHECKING:
    import numpy as np

MODEL: Final = "model.pt"


def input_places(names: Sequence[str], arguments: Sequence[str]) -> list[int]:
    """The argument of ``forward`` that each input of a config goes to.

    By the arguments' names where all inputs have one; else by ``NAME__INDEX`` where all inputs say it; else by order.
    """
    if all(name in arguments for name in names):
        return [list(arguments).index(name) for name in names]
    return output_places(names)


def output_places(names: Sequence[str]) -> list[int]:
    """The position in what ``forward`` returns of each output of a config: by ``NAME__INDEX``, else by order."""
    places = []
    for name in names:
        _, mark, index = name.partition("__")
        if not mark or (index and not index.isdigit()):
            return list(range(len(names)))
        places.append(int(index or 0))
    return places


def arguments_of(module: Any) -> list[str]:
    """The names of ``forward``'s arguments."""
    return [argument.name for argument in module.forward.schema.arguments if argument.name != "self"]


class TorchScriptRunner:
    """A loaded module."""

    def __init__(self, module: Any, signature: Signature, place: Place, *, optimise: bool) -> None:
        import torch

        self.title = f"torchscript {torch.__version__}"
        self.module = module
        self.signature = signature
        self.place = place
        self.optimise = optimise
        self.inputs = input_places([tensor.name for tensor in signature.inputs], arguments_of(module))
        self.outputs = output_places([tensor.name for tensor in signature.outputs])

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        import torch

        jit: Any = torch.jit
        fed: list[Any] = [None] * len(self.signature.inputs)
        for tensor, place in zip(self.signature.inputs, self.inputs, strict=True):
            if tensor.name in inputs and place < len(fed):
                fed[place] = to_torch(tensor, inputs[tensor.name])
        try:
            with jit.optimized_execution(self.optimise), torch.inference_mode():
                found = flat(self.module(*fed))
            return {
                tensor.name: to_numpy(found[place])
                for tensor, place in zip(self.signature.outputs, self.outputs, strict=True)
            }
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            raise CheckFailed(
                "TorchScript cannot run the model",
                place=self.place,
                found=f"{last_line(error)} with {shapes(inputs)}",
            ) from None


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> TorchScriptRunner:
    """Open ``model.pt`` on the CPU."""
    import torch

    assert artifact.signature is not None
    jit: Any = torch.jit
    torch.set_num_threads(threads)
    file = folder / str(artifact.metadata.get("file", MODEL))
    place = Place(file)
    try:
        module = jit.load(str(file), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise CheckFailed(
            f"PyTorch {torch.__version__} cannot load {file.name}", place=place, found=last_line(error)
        ) from None
    module.eval()
    return TorchScriptRunner(module, artifact.signature, place, optimise=optimise)
