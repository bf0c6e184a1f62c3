"""``golden``: reference answers of the unchanged source at the batch sizes and shapes that break things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet, write_cases
from tritonforge.errors import CheckFailed, Place
from tritonforge.steps.export.import_onnx import MODEL
from tritonforge.steps.onnx_session import open_session, run_session
from tritonforge.steps.step import Job, Needs


class Golden:
    """Runs the source with every optimisation off.

    The configuration has ``seed``, ``axes``, ``ranges``, ``batches`` (for batched models) and ``tolerance``. Cases are
    named ``batch<N>-<small|large>``; without a batch ``small`` and ``large``.
    """

    name = "golden"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=("onnxruntime",))

    def run(self, job: Job) -> Draft:
        import onnxruntime

        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        place = Place(source.folder / MODEL)
        session = open_session(source.folder / MODEL, optimise=False, place=place)
        cases = []
        for name, batch, sizes in plan_cases(signature, job.config):
            inputs = make_inputs(
                signature, batch=batch, sizes=sizes, seed=job.config["seed"], ranges=job.config["ranges"]
            )
            try:
                outputs = run_session(session, inputs, place)
            except CheckFailed as error:
                raise CheckFailed(
                    f"the source cannot answer the generated case '{name}'",
                    place=place,
                    found=error.found,
                    hint="declare what its inputs look like under `golden.axes` and `golden.ranges`",
                ) from None
            _refuse_nan(name, outputs, place)
            cases.append(Case(name, inputs, outputs))
        datatypes = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
        reference = f"the source in onnxruntime {onnxruntime.__version__}, optimisations off"
        write_cases(job.out, CaseSet(reference, tuple(cases), datatypes, job.config["tolerance"]))
        return Draft("golden", signature, {"reference": reference, "cases": [case.name for case in cases]})


def _refuse_nan(case: str, outputs: Mapping[str, Any], place: Place) -> None:
    """A reference of nothing but NaN proves nothing: whatever is NaN too would pass."""
    import numpy as np

    for name, array in outputs.items():
        if array.dtype.kind == "f" and array.size and np.isnan(array).all():
            raise CheckFailed(
                f"the source answers nothing but NaN in '{name}' of the generated case '{case}'",
                place=place,
                hint="say what its inputs look like under `golden.ranges`",
            )


def plan_cases(signature: Signature, config: Mapping[str, Any]) -> list[tuple[str, int, dict[str, int]]]:
    """Name, batch and axis sizes of each case."""
    bounds = {name: tuple(sizes) for name, sizes in config["axes"].items()}
    small, large = (axis_sizes(signature, bounds, largest=flag) for flag in (False, True))
    shapes = [("small", small)] if small == large else [("small", small), ("large", large)]
    if not signature.batched:
        return [(name, 1, sizes) for name, sizes in shapes]
    return [
        (f"batch{batch}-{name}", batch, sizes) for batch in sorted(set(config["batches"])) for name, sizes in shapes
    ]
