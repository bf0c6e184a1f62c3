"""``import-huggingface``: a network of transformers as an artifact with a proven signature."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.generate import axes_of
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.probe import probe
from tritonforge.runners.torch_tensors import last_line, shapes, to_numpy, to_torch
from tritonforge.sources.huggingface.config import MODEL
from tritonforge.sources.huggingface.files import model_files
from tritonforge.sources.huggingface.load import load_module
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.step import Job, Needs

if TYPE_CHECKING:
    import numpy as np

    from tritonforge.sources.huggingface.module import TaskModule

PAST_AND_NEW: Final = "past_sequence + sequence"


class ImportHuggingFace:
    """Keeps the files that loading reads, loads the network for its task, and finds out its outputs by running it.

    The configuration has ``recipe`` (the spec's ``huggingface`` settings, ``kind`` and ``source``), ``inputs`` and
    ``outputs`` (refinements), ``batched``, and ``axes`` and ``ranges`` over what the network itself says of its inputs.
    """

    name = "import-huggingface"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(768 << 20) + 2 * input_bytes, tools=("torch", "transformers"))

    def run(self, job: Job) -> Draft:
        own = {path.removeprefix(f"{MODEL}/"): file for path, file in job.sources.items()}
        for name in model_files(own):
            place_file(own[name], inside(job.out, f"{MODEL}/{name}"))
        (job.out / MODEL).mkdir(exist_ok=True)
        place = Place(own.get("config.json", Path(str(job.config["recipe"].get("source", "")))))
        recipe = {**job.config["recipe"], "inputs": dict(job.config["inputs"])}
        module = load_module(job.out, recipe)
        call = module.call
        axes = {**{name: list(sizes) for name, sizes in call.axes.items()}, **job.config["axes"]}
        ranges = {**call.ranges, **job.config["ranges"]}
        found = probe(
            runnable(module, place),
            call.inputs,
            batched=True if job.config["batched"] is None else job.config["batched"],
            axes=axes,
            ranges=ranges,
            names=call.outputs,
        )
        signature = refine(_named(found.signature), job.config["inputs"], job.config["outputs"], place)
        return Draft(
            "torch",
            signature,
            {
                "recipe": recipe,
                # The network's code is the library's: whatever is made of this artifact depends on its version, too.
                "library": f"transformers {importlib.metadata.version('transformers')}",
                "task": call.task,
                "network": type(module.model).__name__,
                "generation": {
                    "axes": {name: list(sizes) for name, sizes in call.axes.items()},
                    "ranges": dict(call.ranges),
                },
                "notes": list(found.notes),
            },
        )


def runnable(module: TaskModule, place: Place) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray[Any, Any]]]:
    """The module as a function of arrays by name."""
    import torch

    torch.set_num_threads(1)

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        tensors = [to_torch(tensor, inputs[tensor.name]) for tensor in module.call.inputs]
        try:
            with torch.inference_mode():
                return {name: to_numpy(value) for name, value in module(*tensors).items()}
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            raise CheckFailed(
                f"{type(module.model).__name__} cannot be run for '{module.call.task}'",
                place=place,
                found=f"{type(error).__name__}: {last_line(error)} with {shapes(inputs)}",
                hint="say what it is for with `huggingface: {task: …}`, and how large its inputs are with `inputs:` "
                "and `golden.axes`",
            ) from None

    return run


def _named(signature: Signature) -> Signature:
    """The axis of a cache that has grown, by its name: probing sees only that it moves with both of its parts."""
    if not any(dim == PAST_AND_NEW for tensor in signature.inputs for dim in tensor.shape):
        return signature
    parts = axes_of(PAST_AND_NEW)

    def one(tensor: Tensor) -> Tensor:
        shape: Sequence[Dim] = tensor.shape
        if tensor.name.startswith("present."):
            shape = [PAST_AND_NEW if isinstance(dim, str) and (dim[0] == "?" or dim in parts) else dim for dim in shape]
        return replace(tensor, shape=tuple(shape))

    return replace(signature, outputs=tuple(map(one, signature.outputs)))
