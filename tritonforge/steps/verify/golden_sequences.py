"""``golden-sequences``: reference answers of an unchanged source with states, request after request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.generate import make_inputs
from tritonforge.artifact.sequence import split
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet, write_cases
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import open_runner
from tritonforge.runners.sequences import SourceSequences
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.step import Job, Needs
from tritonforge.steps.tools import runner_tools
from tritonforge.steps.verify.golden import plan_cases, read_inputs, refuse_nan, with_generation


class GoldenSequences:
    """Runs the source as its author does: states handed on, context in front of each chunk, all zero at the start.

    The configuration is that of ``golden``, with ``sequence``, ``inputs``, ``outputs`` and ``batched`` as ``stateful``
    has them. Every tensor of a case has the requests on a leading axis; the rows of a batch are sequences side by side.
    """

    name = "golden-sequences"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=runner_tools(config["format"]))

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        assert source.artifact.signature is not None
        place = Place(source.folder)
        config = with_generation(job.config, source.artifact.metadata)
        sequence = config["sequence"]
        parts = split(source.artifact.signature, sequence, config["batched"], place)
        clients = refine(parts.clients, config["inputs"], config["outputs"], place)
        runner = SourceSequences(
            open_runner(source.artifact, source.folder, optimise=False),
            replace(parts, clients=clients),
            sequence["constants"],
        )
        planned = [
            (name, _requests(clients, batch, sizes, sequence["requests"], config))
            for name, batch, sizes in plan_cases(clients, config)
        ]
        whole = _with_requests(clients)
        planned += [(Path(name).stem, read_inputs(path, whole)) for name, path in sorted(job.sources.items())]
        cases = []
        for name, inputs in planned:
            try:
                outputs = runner.run(inputs)
            except CheckFailed as error:
                raise CheckFailed(
                    f"the source cannot answer the sequence '{name}'",
                    place=place,
                    found=error.found or error.message,
                    hint="declare what its inputs look like under `golden.axes` and `golden.ranges`",
                ) from None
            refuse_nan(name, outputs, place)
            cases.append(Case(name, dict(inputs), outputs, sequence=True))
        datatypes = {tensor.name: tensor.datatype for tensor in (*clients.inputs, *clients.outputs)}
        reference = f"the source in {runner.title}, request after request"
        write_cases(job.out, CaseSet(reference, tuple(cases), datatypes, config["tolerance"]))
        return Draft("golden", clients, {"reference": reference, "cases": [case.name for case in cases]})


def _requests(
    clients: Signature, batch: int, sizes: Mapping[str, int], count: int, config: Mapping[str, Any]
) -> dict[str, Any]:
    """So many requests, each with other values."""
    import numpy as np

    made = [
        make_inputs(clients, batch=batch, sizes=sizes, seed=int(config["seed"]) * 1000 + step, ranges=config["ranges"])
        for step in range(count)
    ]
    return {name: np.stack([one[name] for one in made]) for name in made[0]}


def _with_requests(clients: Signature) -> Signature:
    """The inputs as files of real ones have them: with the requests in front."""
    return Signature(
        tuple(replace(tensor, shape=("requests", *tensor.shape)) for tensor in clients.inputs), (), clients.batched
    )
