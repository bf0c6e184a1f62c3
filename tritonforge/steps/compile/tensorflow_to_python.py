"""``tensorflow-to-python``: a TensorFlow source as a model of Triton's Python backend, which runs TensorFlow itself."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.linking import copy_file, place_file
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.load import load_function
from tritonforge.sources.tensorflow.loaded import Loaded, first_lines
from tritonforge.sources.tensorflow.savedmodel import chosen
from tritonforge.steps.compile import served_tensorflow
from tritonforge.steps.step import Input, Job, Needs

_SERVING: Final = "serving_default"


class TensorFlowToPython:
    """Packs a SavedModel with a ``model.py`` of ours: for models that ONNX cannot take.

    A SavedModel is served as it is; every other source becomes one, so that the code that made it is not needed to
    serve it. Requirements pin the TensorFlow that was used.
    """

    name = "tensorflow-to-python"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(1 << 30) + 4 * input_bytes, tools=("tensorflow", "keras"))

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        halves = [item.name for item in (*signature.inputs, *signature.outputs) if item.datatype == "BF16"]
        if halves:
            raise CheckFailed(
                "the Python backend has no BF16: numpy does not know it",
                found=", ".join(halves),
                hint="cast to float32 at the model's border",
            )
        recipe = source.artifact.metadata["recipe"]
        loaded = load_function(source.folder, recipe)
        if recipe["kind"] == "savedmodel":
            served = _as_it_is(source, job.out)
        else:
            served = _saved(loaded, job.out)
        types = dict(zip((tensor.name for tensor in loaded.inputs), loaded.specs, strict=True))
        about = {
            "signature": served["signature"],
            "tags": served["tags"],
            "inputs": [
                {
                    "name": item.name,
                    "argument": served["names"]["inputs"][item.name],
                    "dtype": types[item.name].dtype.name,
                }
                for item in signature.inputs
            ],
            "outputs": [
                {"name": item.name, "key": served["names"]["outputs"][item.name]} for item in signature.outputs
            ],
        }
        (job.out / "model.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        copy_file(Path(served_tensorflow.__file__).with_name("model.py"), job.out / "model.py")
        requirements = [_requirement()]
        (job.out / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        metadata = {
            "runner": "tensorflow",
            "recipe": {"kind": "savedmodel", **served},
            "requirements": requirements,
            "made_by": f"tensorflow {tensorflow().__version__}",
            "notes": [str(note) for note in source.artifact.metadata.get("notes", ())],
            "generation": source.artifact.metadata.get("generation"),
        }
        return Draft("python", signature, metadata)


def _as_it_is(source: Input, out: Path) -> dict[str, Any]:
    recipe = source.artifact.metadata["recipe"]
    root = source.folder / "model"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            place_file(path, out / "model" / path.relative_to(root))
    name, tags = chosen(source.folder, recipe)
    signature = source.artifact.signature
    assert signature is not None
    names = {
        "inputs": {tensor.name: tensor.name for tensor in signature.inputs},
        "outputs": {tensor.name: tensor.name for tensor in signature.outputs},
    }
    return {"signature": name, "tags": tags, "names": recipe.get("names") or names}


def _saved(loaded: Loaded, out: Path) -> dict[str, Any]:
    """Save the function under names of its own: those of the source may be none for an argument."""
    tf = tensorflow()
    inputs = [f"input_{index}" for index in range(len(loaded.inputs))]
    outputs = [f"output_{index}" for index in range(len(loaded.outputs))]
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in zip(inputs, loaded.specs, strict=True)]

    def serve(*values: Any) -> dict[str, Any]:
        return dict(zip(outputs, loaded.function(*values), strict=True))

    def save(**holders: Any) -> None:
        module = tf.Module()
        for name, value in holders.items():
            setattr(module, name, value)
        module.serve = tf.function(serve, input_signature=specs, autograph=False)
        tf.saved_model.save(module, str(out / "model"), signatures={_SERVING: module.serve})

    try:
        try:
            save(weights=list(loaded.function.graph.variables))
        except AssertionError:  # it has lookup tables, too: they are saved with the model that owns them
            save(weights=list(loaded.function.graph.variables), holder=loaded.holder)
    except Exception as error:  # what a layer's own saving raises
        raise CheckFailed(
            "the model cannot be saved as a SavedModel",
            place=Place(loaded.place.file),
            found=f"{type(error).__name__}: {first_lines(error)}",
            hint="export it where it was made (`model.export(path)`), and give the SavedModel",
        ) from None
    return {
        "signature": _SERVING,
        "tags": ["serve"],
        "names": {
            "inputs": dict(zip((tensor.name for tensor in loaded.inputs), inputs, strict=True)),
            "outputs": dict(zip(loaded.outputs, outputs, strict=True)),
        },
    }


def _requirement() -> str:
    """TensorFlow as it is installed here, whichever of its builds that is."""
    version = tensorflow().__version__
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return f"{name}=={version}"
    return f"tensorflow=={version}"
