"""``simplify``: fold constants and drop what an ONNX graph does not need, with onnxslim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.linking import copy_file
from tritonforge.errors import CheckFailed, EnvironmentLacks, Place
from tritonforge.runners.onnx import MODEL
from tritonforge.sources.onnx_file import facts, parse
from tritonforge.steps.step import Job, Needs


class Simplify:
    """Writes the simplified graph; a changed signature or opset is a failure. ``parity`` compares the outputs."""

    name = "simplify"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 4 * input_bytes, tools=("onnx", "onnxruntime", "onnxslim"))

    def run(self, job: Job) -> Draft:
        try:
            import onnxslim
        except ImportError:
            raise EnvironmentLacks(
                "`simplify` needs the package onnxslim", hint="pip install 'tritonforge[simplify]'"
            ) from None
        source = job.inputs["model"]
        external = source.artifact.metadata["external"]
        if external:
            raise CheckFailed(
                "`simplify` takes no models with external data",
                place=Place(source.folder / MODEL),
                hint="drop `simplify: true` for this model",
            )
        before = parse(source.folder / MODEL)
        slim = onnxslim.slim(str(source.folder / MODEL))
        if slim is None:
            raise CheckFailed(
                "onnxslim gave no model", place=Place(source.folder / MODEL), hint="drop `simplify: true`"
            )
        target = job.out / MODEL
        if len(slim.graph.node) == len(before.graph.node) and slim.graph.node == before.graph.node:
            # Nothing to simplify: keep the very bytes, so that the artefact stays equal.
            copy_file(source.folder / MODEL, target)
        else:
            target.write_bytes(slim.SerializeToString(deterministic=True))
        found = facts(parse(target), Place(target))
        was = facts(before, Place(source.folder / MODEL))
        if _outline(found.signature.to_json()) != _outline(was.signature.to_json()) or found.opset != was.opset:
            raise CheckFailed(
                "onnxslim changed the model's signature or opset",
                expected=f"opset {was.opset}, {was.signature.to_json()}",
                found=f"opset {found.opset}, {found.signature.to_json()}",
                hint="drop `simplify: true` for this model",
            )
        metadata = {
            **source.artifact.metadata,
            "nodes": {"before": len(before.graph.node), "after": len(slim.graph.node)},
        }
        print(f"{len(before.graph.node)} nodes before, {len(slim.graph.node)} after")  # noqa: T201 - the step's log
        return Draft("onnx", source.artifact.signature, metadata)


def _outline(signature: Mapping[str, Any]) -> list[Any]:
    """Names, types and shapes, with dynamic axes as -1: their names may change."""
    return [
        (tensor["name"], tensor["datatype"], [dim if isinstance(dim, int) else -1 for dim in tensor["shape"]])
        for tensor in (*signature["inputs"], *signature["outputs"])
    ]
