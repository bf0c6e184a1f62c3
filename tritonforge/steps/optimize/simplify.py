"""``simplify``: fold constants and drop what an ONNX graph does not need, with onnxslim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.linking import place_file
from tritonforge.errors import CheckFailed, EnvironmentLacks, Place
from tritonforge.runners.onnx import MODEL
from tritonforge.sources.onnx_file import facts, parse
from tritonforge.steps.onnx_files import external_of, kept_draft, load_whole, refuse_large, write
from tritonforge.steps.step import Job, Needs


class Simplify:
    """Writes the simplified graph; a changed signature or opset is a failure. ``parity`` compares the outputs.

    Weights stay in external data where the source has them there.
    """

    name = "simplify"
    version = 2

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
        drop = "drop `simplify: true` for this model"
        refuse_large(source, "simplify", drop)
        path = source.folder / MODEL
        before = parse(path)
        slim = onnxslim.slim(load_whole(path))
        if slim is None:
            raise CheckFailed("onnxslim gave no model", place=Place(path), hint=drop)
        nodes = {"before": len(before.graph.node), "after": len(slim.graph.node)}
        if nodes["before"] == nodes["after"] and slim.graph.node == before.graph.node:
            # Nothing to simplify: keep the very bytes, so that the artefact stays equal.
            for name in (MODEL, *external_of(source)):
                place_file(source.folder / name, job.out / name)
        else:
            write(slim, job.out, external=bool(external_of(source)))
        draft = kept_draft(job, "the simplified model", drop, nodes=nodes)
        was = facts(before, Place(path)).opset
        if draft.metadata["opset"] != was:
            raise CheckFailed(
                "onnxslim changed the model's opset",
                expected=f"opset {was}",
                found=f"opset {draft.metadata['opset']}",
                hint=drop,
            )
        print(f"{nodes['before']} nodes before, {nodes['after']} after")  # noqa: T201 - the step's log
        return draft
