"""The verdict at the head of a report: proven, partly, failed, or not proven at all."""

from __future__ import annotations

from collections.abc import Sequence

from tritonforge.report.document import GateReport, ModelRow, ParityRow, State, Summary, ValidationRow


def summarize(
    models: Sequence[ModelRow],
    parity: Sequence[ParityRow],
    validation: Sequence[ValidationRow],
    gates: Sequence[GateReport],
) -> Summary:
    """The worst that the evidence shows decides; what is missing is never taken for good."""
    failed = [row.folder for row in validation if not row.ok]
    differ = sorted({row.model for row in parity if not row.ok})
    slow = [gate.name for gate in gates if gate.verdict == "fail"]
    unproven = [row.folder for row in models if row.proof in ("offline", "nothing")]
    open_gates = [gate.name for gate in gates if gate.verdict in ("inconclusive", "not measured")]
    reasons = [
        *([f"failed on a server: {', '.join(failed)}"] if failed else []),
        *([f"further from its source than allowed: {', '.join(differ)}"] if differ else []),
        *([f"gate failed: {', '.join(slow)}"] if slow else []),
        *([f"not proven on any server: {', '.join(unproven)}"] if unproven else []),
        *([f"gate without a verdict: {', '.join(open_gates)}"] if open_gates else []),
        *_good(models, parity, validation, gates),
    ]
    if failed or differ or slow:
        return Summary("failed", "Evidence speaks against this release", tuple(reasons))
    state: State
    if len(unproven) == len(models):
        state, headline = "unproven", "Not proven on any server yet"
    elif unproven or open_gates:
        state, headline = "partly", "Not all of it is proven"
    elif not any(row.proof == "answers" for row in models):
        state, headline = "partly", "It loads on a server; no answer was compared with a reference"
    else:
        state, headline = "proven", "Proven: it loads, answers as it should" + (" and is fast enough" if gates else "")
    return Summary(state, headline, tuple(reasons))


def _good(
    models: Sequence[ModelRow],
    parity: Sequence[ParityRow],
    validation: Sequence[ValidationRow],
    gates: Sequence[GateReport],
) -> list[str]:
    lines = []
    good = [row for row in validation if row.ok]
    for server in sorted({row.server for row in good}):
        here = [row for row in good if row.server == server]
        compared = sum(row.compared for row in here)
        many = f"{len(here)} of {len(models)}" if len(here) < len(models) or len(models) == 1 else f"all {len(here)}"
        lines.append(f"{many} loaded on {server}; {compared} answers compared with their references")
    bare = [row.folder for row in models if row.proof == "loaded"]
    if bare:
        lines.append(f"without reference answers of their own: {', '.join(bare)}")
    near = sum(row.ok for row in parity)
    if near:
        lines.append(f"{near} outputs of converted models compared with their sources, offline")
    passed = [gate.name for gate in gates if gate.verdict == "pass"]
    if passed:
        lines.append(f"gate passed: {', '.join(passed)}")
    return lines
