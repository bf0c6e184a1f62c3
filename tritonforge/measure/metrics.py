"""Read Triton's Prometheus counters of requests, and take the difference over a run.

What ``nv_inference_request_failure`` does not count (seen on 2.51.0): an error that a Python-backend model answers
with is counted as a *success* of that model, and a request refused before it is queued (wrong shape, unknown input)
is not counted at all. So no failures here is no proof that clients saw none: a gate also needs the clients' count.
For an ensemble, ask by the ensemble's own name: its counters hold the requests that clients sent, while those of its
members count the same requests again. One failed request can count twice there (reason ``OTHER``), so a rate from an
ensemble is an upper bound.
Source: Triton ``docs/user_guide/metrics.md``; the exposition format of Prometheus, version 0.0.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

SUCCESS: Final = "nv_inference_request_success"
FAILURE: Final = "nv_inference_request_failure"

_SAMPLE: Final = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>[^\s]+)(?:\s+-?\d+)?\s*$")
_LABEL: Final = re.compile(r'\s*(?P<key>[A-Za-z_]\w*)\s*=\s*"(?P<value>(?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPES: Final = {"n": "\n", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition: a name, its labels and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Requests of one model that the server finished and failed between two readings.

    ``by_reason`` splits the failures (``REJECTED``, ``CANCELED``, ``BACKEND``, ``OTHER``). ``problem`` says why the
    numbers cannot be used: the model is missing, or the server restarted in between.
    """

    model: str
    success: int
    failure: int
    by_reason: Mapping[str, int]
    problem: str | None = None

    @property
    def rate(self) -> float | None:
        """Failures over all requests; None where there were none or the numbers are unusable."""
        total = self.success + self.failure
        return None if self.problem or total == 0 else self.failure / total


def parse_metrics(text: str) -> tuple[Sample, ...]:
    """Every sample of a Prometheus text; lines that are none (comments, half a last line) are left out."""
    samples: list[Sample] = []
    # Without its newline the last line may be cut inside a number.
    for line in text.split("\n")[:-1]:
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is None:
            continue
        labels = {m["key"]: _unescape(m["value"]) for m in _LABEL.finditer(match["labels"] or "")}
        try:
            samples.append(Sample(match["name"], labels, float(match["value"])))
        except ValueError:
            continue
    return tuple(samples)


def difference(before: str, after: str, model: str, version: int | str | None = None) -> FailureCount:
    """What happened to ``model`` between two readings of the metrics endpoint (texts).

    Without ``version`` all its versions count together. Series that appear only in ``after`` began at zero.
    """
    old, new = (_counters(parse_metrics(text), model, version) for text in (before, after))
    if not new:
        named = f"model '{model}'" + (f" version {version}" if version is not None else "")
        return FailureCount(model, 0, 0, {}, f"the server's metrics have no counters of {named}")
    # A series that vanishes or runs backwards belongs to a server or a model that was loaded anew.
    if any(new.get(key, -1.0) < value for key, value in old.items()):
        return FailureCount(model, 0, 0, {}, "the counters ran backwards: the server or the model was restarted")
    success = 0
    by_reason: dict[str, int] = {}
    for (name, reason, _), value in new.items():
        change = round(value - old.get((name, reason, _), 0.0))
        if name == SUCCESS:
            success += change
        else:
            by_reason[reason] = by_reason.get(reason, 0) + change
    return FailureCount(model, success, sum(by_reason.values()), by_reason)


def _counters(
    samples: Iterable[Sample], model: str, version: int | str | None
) -> dict[tuple[str, str, tuple[tuple[str, str], ...]], float]:
    """By name, reason and remaining labels (version, GPU): one series each."""
    return {
        (sample.name, sample.labels.get("reason", ""), tuple(sorted(sample.labels.items()))): sample.value
        for sample in samples
        if sample.name in (SUCCESS, FAILURE)
        and sample.labels.get("model") == model
        and (version is None or sample.labels.get("version") == str(version))
    }


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text)
