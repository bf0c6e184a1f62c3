"""The report of one release as typed data; JSON is this, HTML and the terminal are views of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Literal

from tritonforge.measure import GateEvidence
from tritonforge.report.wiring import EnsembleGraph

SCHEMA: Final = 1

State = Literal["proven", "partly", "failed", "unproven"]
Proof = Literal["answers", "loaded", "failed", "offline", "nothing"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What the head of the report says. ``state`` is the worst of ``reasons``' findings, never better than measured."""

    state: State
    headline: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One folder of the repository. ``inputs`` and ``outputs`` are in words: ``pixels: FP32[batch,3,224,224]``.

    ``proof`` is what the newest evidence shows: ``answers`` were compared, it only ``loaded``, it ``failed``, its
    source was compared ``offline``, or ``nothing``. ``proven_on`` says the same in words, with the server.
    """

    folder: str
    name: str
    kind: str
    description: str | None
    version: int
    backend: str
    format: str
    artifact: str
    config: str
    config_text: str | None
    max_batch_size: int
    decoupled: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: int
    size: int
    proof: Proof
    proven_on: str


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step behind a model.

    ``status`` is against the previous release: ``new``, ``changed``, ``unchanged``, or ``unknown`` where that is no
    longer kept. ``started`` and ``seconds`` are of the run that made the artefact, which an earlier build may have
    been; None where the store has forgotten it.
    """

    model: str
    step: str
    key: str
    status: Literal["new", "changed", "unchanged", "unknown"]
    reasons: tuple[str, ...]
    sources: Mapping[str, str]
    tools: Mapping[str, str]
    artifact: str | None = None
    started: str | None = None
    seconds: float | None = None
    machine: str | None = None
    python: str | None = None
    facets: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One output of one case of a converted model against its source; ``bound`` is the absolute tolerance."""

    model: str
    case: str
    output: str
    ok: bool
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    agreement: float | None
    bound: float | None
    reason: str | None
    reference: str
    at: str
    made_by: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """One model on a live server. ``problems`` are its own; ``failures`` are cases that were answered wrongly."""

    folder: str
    ok: bool
    server: str
    hardware: str
    at: str
    requests: int
    compared: int
    max_abs: float | None
    problems: tuple[str, ...]
    failures: tuple[str, ...]
    note: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class GateReport:
    """One gate that the spec asks for. ``evidence`` is None where it was not measured, or ``problem`` says why not."""

    name: str
    model: str
    verdict: Literal["pass", "fail", "inconclusive", "not measured"]
    at: str | None = None
    server: str | None = None
    hardware: str | None = None
    evidence: GateEvidence | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What the release changes against the one before it; ``previous`` is that one's digest."""

    previous: str | None
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known about one release; ``made_current`` is when it first became current (UTC)."""

    release: str
    name: str
    description: str | None
    platform: Mapping[str, Any]
    current: bool
    made_current: str | None
    summary: Summary
    models: tuple[ModelRow, ...]
    changes: Changes
    steps: tuple[StepRow, ...]
    ensembles: tuple[EnsembleGraph, ...]
    parity: tuple[ParityRow, ...]
    validation: tuple[ValidationRow, ...]
    gates: tuple[GateReport, ...]
    server_arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document as plain data; a figure that is no number (NaN, infinity) becomes null."""
        return {"schema": SCHEMA, **_plain(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, GateEvidence):
        return _plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
