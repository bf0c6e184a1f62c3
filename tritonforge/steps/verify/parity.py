"""``parity``: the artefact that will be served against the reference answers of its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.compare import DEFAULT_TOLERANCE, Difference, compare
from tritonforge.artifact.tensors import read_cases
from tritonforge.errors import CheckFailed, Place
from tritonforge.steps.export.import_onnx import MODEL
from tritonforge.steps.onnx_session import open_session, run_session
from tritonforge.steps.step import Job, Needs

REPORT: Final = "parity.json"


class Parity:
    """Fails when any output of any case is further away than the tolerance; writes ``parity.json`` otherwise.

    The configuration has ``tolerance`` (null for the default by precision).
    """

    name = "parity"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=("onnxruntime",))

    def run(self, job: Job) -> Draft:
        model, golden = job.inputs["model"], job.inputs["golden"]
        place = Place(model.folder / MODEL)
        session = open_session(model.folder / MODEL, optimise=True, place=place)
        cases = read_cases(golden.folder)
        rows: list[dict[str, Any]] = []
        failed: list[str] = []
        for case in cases.cases:
            outputs = run_session(session, dict(case.inputs), place)
            for name, expected in case.outputs.items():
                result = compare(name, cases.datatypes[name], outputs[name], expected, job.config["tolerance"])
                rows.append({"case": case.name, **result.to_json()})
                print(f"{case.name}: {name}: {_line(result)}")  # noqa: T201 - the step's log
                if not result.ok:
                    failed.append(f"{case.name}: {name}: {result.reason}")
        if failed:
            raise CheckFailed(
                "the artefact does not compute what its source computes",
                found=failed[0],
                expected=f"within {job.config['tolerance'] or 'the default tolerance of its precision'}",
                details=[f"also: {line}" for line in failed[1:4]],
                hint="find the step that changes the result, or state a `tolerance:` that you can accept",
            )
        report = {
            "schema": 1,
            "reference": cases.reference,
            "tolerance": job.config["tolerance"] or dict(DEFAULT_TOLERANCE),
            "rows": rows,
        }
        (job.out / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        worst = max((row["max_abs"] or 0.0 for row in rows), default=0.0)
        return Draft("parity", None, {"comparisons": len(rows), "max_abs": worst})


def _line(result: Difference) -> str:
    parts = [
        f"{name} {value:.3g}"
        for name in ("max_abs", "max_rel", "cosine", "agreement")
        if (value := getattr(result, name)) is not None
    ]
    return f"{'ok' if result.ok else 'FAILED'} {', '.join(parts)}"
