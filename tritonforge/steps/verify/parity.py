"""``parity``: the artefact that will be served against the reference answers of its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact, Draft
from tritonforge.artifact.compare import DEFAULT_TOLERANCE, Difference, compare
from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.tensors import Case, CaseSet, read_cases, takes, write_cases
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import Runner, Tensors, open_runner
from tritonforge.steps.step import Job, Needs
from tritonforge.steps.tools import runner_tools

REPORT: Final = "parity.json"
REPLAY: Final = "replay.json"
FOUND: Final = "found"


@dataclass(frozen=True, slots=True)
class CaseDifference:
    """One output of one case against its reference."""

    case: str
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        return {"case": self.case, **self.difference.to_json()}


class Parity:
    """Fails when any output of any case is further away than the tolerance; writes ``parity.json`` otherwise.

    The configuration has ``format`` (of the artefact) and ``tolerance`` (null for the default by precision). Cases that
    fail are kept, with the answers that were found, and a command that replays them.
    """

    name = "parity"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=runner_tools(config["format"]))

    def run(self, job: Job) -> Draft:
        model, golden = job.inputs["model"], job.inputs["golden"]
        runner = open_runner(model.artifact, model.folder)
        cases = taken(read_cases(golden.folder), model.artifact)
        tolerance = job.config["tolerance"]
        rows: list[CaseDifference] = []
        bad: list[tuple[Case, Tensors]] = []
        for case in cases.cases:
            found, compared = hold(runner, case, cases, tolerance)
            rows += compared
            for row in compared:
                print(f"{row.case}: {row.difference.output}: {line(row.difference)}")  # noqa: T201 - the step's log
            if not all(row.difference.ok for row in compared):
                bad.append((case, found))
        failed = [
            f"{row.case}: {row.difference.output}: {row.difference.reason}" for row in rows if not row.difference.ok
        ]
        if failed:
            keep(job.kept, model.artifact, cases, bad, tolerance)
            raise CheckFailed(
                "the artefact does not compute what its source computes",
                found=failed[0],
                expected=f"within {tolerance or 'the default tolerance of its precision'}",
                details=[
                    *[f"also: {text}" for text in failed[1:4]],
                    f"{len(bad)} of {len(cases.cases)} cases are kept; see them again with: "
                    f"tritonforge replay '{job.kept}'",
                ],
                hint="find the step that changes the result, or state a `tolerance:` that you can accept",
            )
        report = {
            "schema": 2,
            "reference": cases.reference,
            "runner": runner.title,
            "made_by": model.artifact.metadata.get("made_by"),
            "tolerance": tolerance or dict(DEFAULT_TOLERANCE),
            "rows": [row.to_json() for row in rows],
        }
        (job.out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        worst = max((row.difference.max_abs or 0.0 for row in rows), default=0.0)
        cosines = [row.difference.cosine for row in rows if row.difference.cosine is not None]
        return Draft(
            "parity",
            None,
            {"comparisons": len(rows), "max_abs": worst, "cosine": min(cosines, default=None)},
        )


def taken(cases: CaseSet, artifact: Artifact) -> CaseSet:
    """The cases whose inputs have the shapes that the artefact takes: a line may fix sizes that its source leaves open.

    Raises:
        CheckFailed: there is none, so that nothing would be proven.
    """
    signature = artifact.signature
    assert signature is not None
    fitting = tuple(case for case in cases.cases if takes(signature, case))
    if not fitting:
        raise CheckFailed(
            "no golden case has the shape that the artefact takes",
            expected="; ".join(map(str, signature.inputs)),
            found="; ".join(f"{name} {list(value.shape)}" for name, value in cases.cases[-1].inputs.items()),
            hint="let `golden.axes` have the fixed sizes as their smallest or largest, and `max_batch_size` a fixed "
            "batch",
        )
    if len(fitting) < len(cases.cases):
        left = sorted({case.name for case in cases.cases} - {case.name for case in fitting})
        print(f"of other shapes than the artefact takes: {', '.join(left)}")  # noqa: T201 - the step's log
    return replace(cases, cases=fitting)


def hold(
    runner: Runner, case: Case, cases: CaseSet, tolerance: Mapping[str, float] | None
) -> tuple[Tensors, list[CaseDifference]]:
    """The answers of ``runner`` to a case, and each output's distance from the reference.

    A missing output and a changed type are failures whatever the tolerance.
    """
    found = runner.run(case.inputs)
    rows = []
    for name, expected in case.outputs.items():
        datatype = cases.datatypes[name]
        wanted = BY_NAME[datatype].numpy or "float32"
        if name not in found:
            difference = Difference(name, False, reason=f"the output is missing; there are {', '.join(found)}")
        elif wanted != "object" and str(found[name].dtype) != wanted:
            difference = Difference(name, False, reason=f"type {found[name].dtype} instead of {wanted}")
        else:
            difference = compare(name, datatype, found[name], expected, tolerance)
        rows.append(CaseDifference(case.name, difference))
    return found, rows


def keep(
    folder: Path,
    artifact: Artifact,
    cases: CaseSet,
    bad: list[tuple[Case, Tensors]],
    tolerance: Mapping[str, float] | None,
) -> None:
    """Keep failing cases with their references, the answers that were found, and what ``tritonforge replay`` needs."""
    write_cases(
        folder, CaseSet(cases.reference, tuple(case for case, _ in bad), cases.datatypes, dict(tolerance or {}) or None)
    )
    answers = tuple(
        Case(case.name, {}, {name: array for name, array in found.items() if name in cases.datatypes})
        for case, found in bad
    )
    types = {
        name: next((item.name for item in BY_NAME.values() if item.numpy == str(array.dtype)), cases.datatypes[name])
        for case in answers
        for name, array in case.outputs.items()
    }
    write_cases(folder / FOUND, CaseSet("the artefact", answers, types, None))
    document = {"schema": 1, "artifact": artifact.digest, "tolerance": tolerance}
    (folder / REPLAY).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def line(result: Difference) -> str:
    """A difference in one line."""
    parts = [
        f"{name} {value:.3g}"
        for name in ("max_abs", "max_rel", "cosine", "agreement")
        if (value := getattr(result, name)) is not None
    ]
    return f"{'ok' if result.ok else 'FAILED'} {', '.join(parts)}"
