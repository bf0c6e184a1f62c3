"""The golden cases of a release that no step makes: the user's case files, and inputs that nobody has answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tritonforge.artifact.generate import make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet, write_cases
from tritonforge.errors import Place
from tritonforge.sources import case_files
from tritonforge.spec.models import GoldenSpec
from tritonforge.steps.verify.golden import plan_cases


def stated_cases(golden: GoldenSpec, signature: Signature, root: Path, place: Place) -> dict[str, bytes]:
    """The user's case files, packed, by file name; ``root`` is the spec's folder.

    Raises:
        SpecError: a file is missing, or a case does not fit the signature.
    """
    files = case_files.find(root, golden.cases, place)
    tolerance = None if golden.tolerance is None else golden.tolerance.model_dump(exclude_none=True)
    return _bytes(case_files.pack(case_files.read(files, root), signature, root, tolerance))


def unanswered_inputs(golden: GoldenSpec, signature: Signature, largest: int) -> dict[str, bytes]:
    """Generated inputs without answers, for what no reference runs offline: they show that it answers at all."""
    bounds = {axis: (sizes[0], sizes[1]) for axis, sizes in golden.axes.items()}
    ranges = {key: value.model_dump(exclude_none=True) for key, value in golden.ranges.items()}
    config = {"axes": bounds, "batches": sorted({1, min(3, largest), largest} - {0}), "generated": golden.generated}
    cases = tuple(
        Case(label, make_inputs(signature, batch=batch, sizes=sizes, seed=golden.seed, ranges=ranges), {})
        for label, batch, sizes in plan_cases(signature, config)
    )
    datatypes = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
    return _bytes(CaseSet("none", cases, datatypes, None))


def _bytes(cases: CaseSet) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="tritonforge-") as name:
        folder = Path(name)
        write_cases(folder, cases)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
