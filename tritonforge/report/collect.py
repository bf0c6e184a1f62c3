"""Gather all that is known about a release into its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.artifact.compare import DEFAULT_TOLERANCE
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import KeyRecord
from tritonforge.errors import SpecError
from tritonforge.measure import GateEvidence
from tritonforge.report.changes import changes, previous_release, same_steps, step_status
from tritonforge.report.document import GateReport, ModelRow, ParityRow, Proof, Report, StepRow, ValidationRow
from tritonforge.report.figures import hardware_in_words
from tritonforge.report.summary import summarize
from tritonforge.report.wiring import EnsembleGraph, read_graph
from tritonforge.repository.pbtxt import parse
from tritonforge.repository.release import Release, entry_title

MAX_CONFIG: Final = 1 << 20
_VERDICTS: Final[Mapping[bool | None, Any]] = {True: "pass", False: "fail", None: "inconclusive"}


@dataclass(frozen=True, slots=True)
class Known:
    """What a report is made of, besides the release itself.

    ``evidence`` holds by folder the newest ``validation`` and ``parity`` of exactly what is served; ``gates`` the
    newest of each gate, and ``asked_gates`` the model of every gate that the spec asks for here; ``proofs`` says by
    folder in words on what it was proven; ``records`` is what the store knows by a step's key; ``previous`` is
    the release before this one where it is still on disk.
    """

    history: Sequence[Mapping[str, str]] = ()
    current: bool = False
    previous: Release | None = None
    proofs: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked_gates: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, KeyRecord] = field(default_factory=dict)
    description: str | None = None
    descriptions: Mapping[str, str | None] = field(default_factory=dict)


def collect(release: Release, known: Known) -> Report:
    """The report of a release. Evidence that is missing or damaged is said to be so; nothing is measured here.

    Raises:
        SpecError: a ``config.pbtxt`` of the release is damaged.
    """
    document = release.document
    entries = release.models()
    texts = {entry["folder"]: _config_text(release, entry["folder"]) for entry in entries}
    previous = previous_release(known.history, release.digest)
    before = known.previous if known.previous is not None and known.previous.digest == previous else None
    models = tuple(_model(entry, texts[entry["folder"]], known) for entry in entries)
    parity = tuple(_parity_rows(entries, known))
    validation = tuple(_validation_rows(entries, known))
    gates = tuple(_gate(name, model, known.gates.get(name)) for name, model in sorted(known.asked_gates.items()))
    return Report(
        release=release.digest,
        name=str(document["name"]),
        description=known.description,
        platform=dict(document["platform"]),
        current=known.current,
        made_current=next((str(item["at"]) for item in known.history if item["release"] == release.digest), None),
        summary=summarize(models, parity, validation, gates),
        models=models,
        changes=changes(previous, None if before is None else before.document, document),
        steps=tuple(_steps(entries, previous, before, known.records)),
        ensembles=tuple(_ensembles(entries, texts)),
        parity=parity,
        validation=validation,
        gates=gates,
        server_arguments=tuple(str(item) for item in document["server"]["arguments"]),
        notes=tuple(_notes(models)),
    )


def _config_text(release: Release, folder: str) -> str | None:
    """The config as it is served; None where it is gone or far too large to be one."""
    if not is_inside(folder):
        return None
    path = release.models_folder / folder / "config.pbtxt"
    try:
        if path.stat().st_size > MAX_CONFIG:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _model(entry: Mapping[str, Any], text: str | None, known: Known) -> ModelRow:
    signature = Signature.from_json(entry["signature"])
    folder = entry_title(entry)
    proof = _proof(entry, known.evidence.get(folder, {}))
    words = {"answers": "answers compared on a server", "loaded": "loaded on a server", "failed": "FAILED"}
    return ModelRow(
        folder=folder,
        name=entry["name"],
        kind=entry["kind"],
        description=known.descriptions.get(entry["name"]),
        version=int(entry["version"]),
        backend=entry["backend"],
        format=entry["format"],
        artifact=entry["artifact"],
        config=entry["config"],
        config_text=text,
        max_batch_size=int(entry["max_batch_size"]),
        decoupled=bool(entry["decoupled"]),
        inputs=tuple(_tensor(item, signature.batched) for item in signature.inputs),
        outputs=tuple(_tensor(item, signature.batched) for item in signature.outputs),
        files=len(entry["files"]),
        size=sum(int(file["size"]) for file in entry["files"].values()),
        proof=proof,
        proven_on=known.proofs.get(folder) or words.get(proof, "nothing yet"),
    )


def _tensor(tensor: Tensor, batched: bool) -> str:
    """``pixels: FP32[batch,3,224,224]``; exporters call the batch axis anything."""
    shape = ["batch", *tensor.shape[1:]] if batched else list(tensor.shape)
    optional = " (optional)" if tensor.optional else ""
    return f"{tensor.name}: {tensor.datatype}[{','.join(map(str, shape))}]{optional}"


def _proof(entry: Mapping[str, Any], evidence: Mapping[str, Any]) -> Proof:
    validation = evidence.get("validation")
    if validation is None:
        return "offline" if evidence.get("parity") is not None and entry["kind"] == "model" else "nothing"
    if not validation["ok"]:
        return "failed"
    return "answers" if validation["result"]["compared"] else "loaded"


def _notes(models: Sequence[ModelRow]) -> Iterator[str]:
    for row in models:
        if row.config_text is None:
            yield f"{row.folder}: its config.pbtxt could not be read; the release on disk is not whole"


def _steps(
    entries: Sequence[Mapping[str, Any]],
    previous: str | None,
    before: Release | None,
    records: Mapping[str, KeyRecord],
) -> Iterator[StepRow]:
    old = {} if before is None else {entry["folder"]: same_steps(entry["made_from"]) for entry in before.models()}
    for entry in entries:
        for place, step in same_steps(entry["made_from"]).items():
            was = old.get(entry["folder"], {}).get(place)
            status, reasons = step_status(step, was, previous, kept=before is not None)
            record = records.get(step["key"])
            origin: Mapping[str, Any] = {} if record is None else record.provenance
            yield StepRow(
                model=entry["folder"],
                step=step["step"],
                key=step["key"],
                status=status,
                reasons=reasons,
                sources=dict(step["sources"]),
                tools=dict(step["tools"]),
                artifact=None if record is None else record.artifact,
                started=origin.get("started"),
                seconds=origin.get("seconds"),
                machine=origin.get("machine"),
                python=origin.get("python"),
                facets=None if record is None else dict(record.facets),
            )


def _ensembles(entries: Sequence[Mapping[str, Any]], texts: Mapping[str, str | None]) -> Iterator[EnsembleGraph]:
    signatures = {entry["folder"]: Signature.from_json(entry["signature"]) for entry in entries}
    for entry in entries:
        text = texts[entry["folder"]]
        if entry["kind"] == "ensemble" and text is not None:
            yield read_graph(entry["folder"], parse(text), signatures)


def _parity_rows(entries: Sequence[Mapping[str, Any]], known: Known) -> Iterator[ParityRow]:
    for entry in entries:
        found = known.evidence.get(entry_title(entry), {}).get("parity")
        # A router and its arm have one public name: only the arm was converted.
        if found is None or entry["kind"] != "model":
            continue
        datatypes = {item["name"]: item["datatype"] for item in entry["signature"]["outputs"]}
        report = found["report"]
        for row in report["rows"]:
            yield ParityRow(
                model=entry_title(entry),
                **{name: row.get(name) for name in ("case", "output", "max_abs", "max_rel", "cosine", "agreement")},
                ok=bool(row["ok"]),
                bound=_bound(report.get("tolerance"), datatypes.get(row["output"])),
                reason=row.get("reason"),
                reference=str(report.get("reference", "its source")),
                made_by=report.get("made_by"),
                at=found["at"],
            )


def _bound(tolerance: Any, datatype: str | None) -> float | None:
    """The absolute part of a tolerance, which is either one for all outputs or one for each precision."""
    if not isinstance(tolerance, Mapping):
        return None
    chosen = tolerance.get(datatype) if any(name in tolerance for name in DEFAULT_TOLERANCE) else tolerance
    bound = chosen.get("abs") if isinstance(chosen, Mapping) else None
    return float(bound) if isinstance(bound, int | float) else None


def _validation_rows(entries: Sequence[Mapping[str, Any]], known: Known) -> Iterator[ValidationRow]:
    for entry in entries:
        found = known.evidence.get(entry_title(entry), {}).get("validation")
        if found is None:
            continue
        result = found["result"]
        yield ValidationRow(
            folder=entry_title(entry),
            ok=bool(found["ok"]),
            server=str(found["server"].get("title", "a server")),
            hardware=hardware_in_words(found.get("hardware")),
            at=found["at"],
            requests=int(result["cases"]),
            compared=int(result["compared"]),
            max_abs=result.get("max_abs"),
            problems=tuple(map(str, result["problems"])),
            failures=tuple(f"{item['case']} over {item['protocol']}: {item['reason']}" for item in result["failures"]),
            note=result.get("note"),
            seconds=result.get("seconds"),
        )


def _gate(name: str, model: str, found: Mapping[str, Any] | None) -> GateReport:
    if found is None:
        return GateReport(name, model, "not measured")
    try:
        evidence = GateEvidence.from_json(found["evidence"])
    except (SpecError, KeyError) as error:
        problem = error.message if isinstance(error, SpecError) else "the evidence holds no measurement"
        return GateReport(name, model, "inconclusive", found.get("at"), problem=problem)
    server = found.get("server") or {}
    return GateReport(
        name=name,
        model=evidence.model,
        verdict=_VERDICTS[found.get("ok")],
        at=found.get("at"),
        server=server.get("title") or f"Triton {evidence.server_version}",
        hardware=hardware_in_words(evidence.hardware.to_json()),
        evidence=evidence,
    )
