"""``torch-to-compile``: a PyTorch source as a Python model, compiled by ``torch.compile`` when it is loaded."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.torch.load import load_module
from tritonforge.steps.compile.samples import samples
from tritonforge.steps.compile.torch_recipe import packages_of, served_source
from tritonforge.steps.step import Job, Needs

SOURCE: Final = "source"
RECIPE: Final = "recipe.json"
FILES: Final = ("model.py", "forge_torch.py")
"""What is copied from ``served_torch`` as it is: it runs where tritonforge is not installed."""


class TorchToCompile:
    """Packs the source's files, a loader that stands alone, and shapes to warm up with.

    The configuration has ``mode``, as ``torch.compile`` takes it, or ``off``. Nothing is compiled here: that is done
    where it is served, for the processor or GPU there, and kept in a folder of that machine.
    """

    name = "torch-to-compile"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(1 << 30) + 2 * input_bytes, tools=("torch",))

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        recipe = source.artifact.metadata["recipe"]
        module = load_module(source.folder, recipe)
        served = served_source(source.folder, recipe, module)
        for path in source.artifact.files:
            place_file(source.folder / path, inside(job.out, f"{SOURCE}/{path}"))
        names = [tensor.name for tensor in signature.inputs]
        document = {
            "schema": 1,
            "artifact": source.artifact.digest,
            "source": served,
            "inputs": [
                {"name": tensor.name, "datatype": tensor.datatype, "optional": tensor.optional}
                for tensor in signature.inputs
            ],
            "outputs": [{"name": tensor.name, "datatype": tensor.datatype} for tensor in signature.outputs],
            "by_name": recipe["kind"] == "huggingface" or _takes(module, names),
            "mode": job.config["mode"],
            "dynamic": any(isinstance(dim, str) for tensor in signature.inputs for dim in tensor.shape),
            "warm_up": _warm_up(signature, source.artifact.metadata),
        }
        (job.out / RECIPE).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        for name in FILES:
            text = resources.files("tritonforge.steps.compile.served_torch").joinpath(name).read_bytes()
            (job.out / name).write_bytes(text)
        requirements = [_pinned(name) for name in packages_of(served)]
        (job.out / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        how = "as it is" if job.config["mode"] == "off" else f"compiled when loaded (mode {job.config['mode']})"
        return Draft(
            "python",
            signature,
            {
                "runner": "torch-compile",
                "requirements": requirements,
                "made_by": f"PyTorch {importlib.metadata.version('torch')} in the Python backend, {how}",
                "notes": list(source.artifact.metadata.get("notes", ())),
                "generation": source.artifact.metadata.get("generation"),
            },
        )


def _takes(module: Any, names: list[str]) -> bool:
    """Whether ``forward`` has an argument of each of these names."""
    schema = getattr(getattr(module, "forward", None), "schema", None)
    if schema is not None:
        return set(names) <= {argument.name for argument in schema.arguments}
    return set(names) <= set(inspect.signature(module.forward).parameters)


def _warm_up(signature: Signature, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shapes that the compiler shall have seen before the first request: batch 1, others, and every moved axis."""
    ranges = (metadata.get("generation") or {}).get("ranges", {})
    found: list[dict[str, Any]] = []
    for sample in samples(signature, metadata):
        shapes = {
            tensor.name: {
                "shape": list(sample.inputs[tensor.name].shape),
                "datatype": tensor.datatype,
                "value": _value(ranges.get(tensor.name, {})),
            }
            for tensor in signature.inputs
        }
        if shapes not in found:
            found.append(shapes)
    return found


def _value(limits: Mapping[str, Any]) -> float | int:
    """A value within the range of an input."""
    if limits.get("mask"):
        return 1
    choices = [value for value in limits.get("values") or () if isinstance(value, int | float)]
    low = choices[0] if choices else limits.get("low")
    return 0 if low is None else low


def _pinned(name: str) -> str:
    """A requirement of the version that the model was proven with, without the mark of its build (``+cpu``)."""
    try:
        return f"{name}=={importlib.metadata.version(name).partition('+')[0]}"
    except importlib.metadata.PackageNotFoundError:
        raise CheckFailed(f"the module needs the package {name}", place=Place(Path(RECIPE))) from None
