"""What perf_analyzer's log says about a run that left no results. Its exit code says little: 99 is any failure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError
from tritonforge.measure.level import Outcome

_FAILED = re.compile(r"^Thread \[\d+\] had error: (?P<text>.+)$", re.MULTILINE)
_UNSTABLE = re.compile(r"^Failed to obtain stable measurement.*$", re.MULTILINE)
_CANNOT_KEEP_UP = re.compile(
    r"Perf Analyzer (?:is not able to keep up with|was not able to keep up with)|Request latency is not stabilizing"
)

_TOO_SOON = "the server answered every request before perf_analyzer had read its counters, or counts none"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``outcome`` with its ``reason``; ``errors`` counts requests that failed (the first one ends its thread)."""

    outcome: Outcome
    reason: str
    errors: int = 0


def diagnose(log: str) -> Diagnosis:
    """Why a run that should have left results left none."""
    failed = [match["text"].strip() for match in _FAILED.finditer(log)]
    if failed:
        return Diagnosis(Outcome.FAILED, f"a request failed: {failed[0]}", len(failed))
    unstable = _UNSTABLE.search(log)
    if unstable:
        return Diagnosis(Outcome.UNSTABLE, unstable.group(0).strip())
    return Diagnosis(Outcome.MISSING, _TOO_SOON if ended_too_soon(log) else "perf_analyzer left no results")


def client_limited(log: str) -> bool:
    """Whether perf_analyzer warned that it, and not the server, limited the load."""
    return _CANNOT_KEEP_UP.search(log) is not None


def knows_no_warmup(log: str) -> bool:
    """Whether this perf_analyzer has no ``--warmup-request-count``."""
    return "unrecognized option '--warmup-request-count'" in log


def ended_too_soon(log: str) -> bool:
    """Whether all requests were answered before perf_analyzer first looked at the server's counters.

    It starts its requests, then reads the counters, and later seeks the model's version whose counter grew meanwhile
    (``DetermineStatsModelVersion`` in ``inference_profiler.cc``; seen on 2.51.0 where the counters came slowly).
    """
    return "failed to find the requested model version" in log


def setup_error(tail: tuple[str, ...]) -> ForgeError:
    """The error for a run that could not begin: no library, no server, no model, no shape."""
    log = "\n".join(tail)
    first = next((line for line in tail if line.lower().startswith("error") or "unrecognized option" in line), None)
    if "error while loading shared libraries" in log:
        return EnvironmentLacks(
            "perf_analyzer lacks a shared library",
            found=next(line for line in tail if "error while loading" in line),
            hint="name the folder of that library in LD_LIBRARY_PATH",
        )
    if "failed to connect" in log.lower() or "connection refused" in log.lower():
        return EnvironmentLacks(
            "perf_analyzer reaches no server", found=first, hint="check that the server is ready, its URL and protocol"
        )
    hint = None
    if ended_too_soon(log):
        first = _TOO_SOON
        hint = "see that a proxy does not hold back the model's statistics, or ask for more requests, if for a number"
    if "dynamic shape" in log or "variable-sized" in log:
        hint = "give the shape of every input with dynamic dims, or a data file"
    return CheckFailed("perf_analyzer could not measure", found=first, hint=hint, details=() if first else tail)
