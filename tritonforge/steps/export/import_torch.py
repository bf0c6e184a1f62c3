"""``import-torch``: a PyTorch model of any kind as an artifact with a proven signature."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.probe import declared, probe
from tritonforge.sources.torch.arguments import bind, forward_arguments
from tritonforge.sources.torch.load import load_module, load_program, run_module, weights_file
from tritonforge.sources.torch.tensors import TORCH_NAMES
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.step import Job, Needs

_LIBRARIES: Final = {"torchvision": "torchvision", "timm": "timm", "transformers": "transformers"}


class ImportTorch:
    """Keeps the files, loads the module, and finds out what it answers by running it.

    The configuration has ``recipe`` (see ``build/imports.py``), ``inputs`` and ``outputs`` as the spec declares them,
    ``batched`` (null is true), ``axes`` and ``ranges`` of generated inputs. A program of ``torch.export`` tells its
    inputs itself.
    """

    name = "import-torch"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        recipe = config["recipe"]
        library = str(recipe.get("architecture") or "").partition(":")[0]
        tools = ["torch", *([_LIBRARIES[library]] if library in _LIBRARIES else []), *_distribution(recipe)]
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=tuple(tools))

    def run(self, job: Job) -> Draft:
        recipe = job.config["recipe"]
        for path, source in job.sources.items():
            place_file(source, inside(job.out, path))
        place = Place(next((file for path, file in job.sources.items() if path.startswith("model/")), None))
        module = load_module(job.out, recipe)
        axes = dict(job.config["axes"])
        batched: bool | None = job.config["batched"]
        if job.config["inputs"]:
            inputs = declared(job.config["inputs"], batched=batched is not False)
            bind(module, [tensor.name for tensor in inputs], recipe.get("sample") or {})
        elif recipe["kind"] == "torch-export":
            inputs, bounds = _of_program(load_program(job.out), place)
            axes = {**bounds, **axes}
            if batched is None:
                batched = None if all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in inputs) else False
        else:
            raise _unstated(module, place)
        asked = Signature(inputs, (), batched is not False)
        named = {**recipe, "outputs": list(job.config["outputs"])}
        found = probe(
            lambda feeds: run_module(module, named, feeds, asked),
            inputs,
            batched=batched,
            axes=axes,
            ranges=job.config["ranges"],
            names=tuple(job.config["outputs"]),
        )
        notes = list(found.notes)
        if recipe["kind"] in ("torch-module", "architecture") and weights_file(job.out, recipe) is None:
            notes.append("no weights were given: they are what the module itself makes, from a fixed seed")
        signature = found.signature
        if signature.batched or batched is False:
            signature = refine(signature, {}, job.config["outputs"], place)
        return Draft(
            "torch",
            signature,
            {
                "recipe": dict(recipe),
                "parameters": sum(weight.numel() for weight in module.parameters()),
                "generation": {"axes": axes, "ranges": dict(job.config["ranges"])},
                "notes": notes,
            },
        )


def _unstated(module: Any, place: Place) -> CheckFailed:
    """PyTorch keeps no types or shapes of inputs: the spec must say them, and this is how."""
    takes = [item.name for item in forward_arguments(module) or ()] or ["x"]
    return CheckFailed(
        "a PyTorch model does not say what its inputs look like",
        place=place,
        expected="`inputs: {" + ", ".join(f'{name}: "FP32[…]"' for name in takes) + "}`",
        found=f"forward({', '.join(takes)})",
        hint="write type and dims of one item, without the batch axis; -1 or a name is a dynamic axis",
    )


def _of_program(program: Any, place: Place) -> tuple[tuple[Tensor, ...], dict[str, list[int]]]:
    """The inputs of an exported program, and the bounds of its dynamic axes."""
    import torch

    bounds: dict[str, list[int]] = {}
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names = {torch_name: name for name, torch_name in TORCH_NAMES.items()}
    tensors = []
    batches: set[str] = set()
    for name in signature.user_inputs:
        value = values.get(name) if isinstance(name, str) else None
        if not isinstance(value, torch.Tensor):
            raise CheckFailed(
                "the program takes something that is no tensor", place=place, found=str(name), expected="tensors"
            )
        shape: list[Dim] = []
        for axis, size in enumerate(value.shape):
            symbolic: Any = size
            if type(symbolic) is int:
                shape.append(symbolic)
                continue
            symbol = str(symbolic)
            limits = program.range_constraints.get(symbolic.node.expr)
            if axis == 0:
                batches.add(symbol)
            if limits is not None:
                low = max(1, _whole(limits.lower, 1))
                high = _whole(limits.upper, low + 15)
                bounds[symbol] = [low, max(low, min(high, low + 15))]
            shape.append(symbol)
        tensors.append(Tensor(name, names[str(value.dtype).removeprefix("torch.")], tuple(shape)))
    everywhere = len(batches) == 1 and all(tensor.shape and tensor.shape[0] in batches for tensor in tensors)
    if everywhere:
        (symbol,) = batches
        renamed = [Tensor(item.name, item.datatype, ("batch", *item.shape[1:])) for item in tensors]
        if all(symbol not in item.shape for item in renamed):
            tensors = renamed
            bounds.pop(symbol, None)
    return tuple(tensors), bounds


def _whole(limit: Any, unbounded: int) -> int:
    """A bound of a symbol's range; infinities, and what only stands for one, are ``unbounded``."""
    return int(limit) if limit.is_Integer and abs(int(limit)) < 1 << 20 else unbounded


def _distribution(recipe: Mapping[str, Any]) -> list[str]:
    """The installed distribution that an installed module comes from: its version is part of the result."""
    if not recipe.get("module"):
        return []
    top = str(recipe["module"]).partition(":")[0].partition(".")[0]
    return sorted(set(_packages().get(top, ())))


def _packages() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()
