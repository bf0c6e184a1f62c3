"""``validate``: load every model of a release in a live Triton and hold it to its config and its golden cases."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tritonforge.actions import sequences
from tritonforge.actions.chain import chained_cases, ensemble_folder
from tritonforge.actions.compose import evidence_key
from tritonforge.actions.expand import expand
from tritonforge.actions.live import LiveServer, ServerChoice, open_server, same_server
from tritonforge.actions.loading import Loaded, load_all, load_order
from tritonforge.actions.served import served_differently
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.compare import Difference, compare
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet, read_cases
from tritonforge.errors import ForgeError
from tritonforge.measure.hardware import describe
from tritonforge.repository.release import Release
from tritonforge.spec.platform import Platform

if TYPE_CHECKING:
    import numpy as np

PROTOCOLS = ("http", "grpc")


@dataclass(slots=True)
class CaseResult:
    """One case over one protocol: the worst difference of its outputs, or what went wrong."""

    case: str
    protocol: str
    ok: bool
    reason: str | None = None
    max_abs: float | None = None
    compared: bool = True


@dataclass(slots=True)
class ModelValidation:
    """What was found out about one folder of the repository. ``problems`` empty means that it is good."""

    folder: str
    name: str
    version: int
    artifact: str
    config: str
    loaded: bool = False
    overridden: bool = False
    problems: list[str] = field(default_factory=list)
    cases: list[CaseResult] = field(default_factory=list)
    note: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it loaded, says what was published, and answered every case as it should."""
        return self.loaded and not self.problems and all(case.ok for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        compared = [case for case in self.cases if case.compared]
        return {
            "folder": self.folder,
            "name": self.name,
            "version": self.version,
            "artifact": self.artifact,
            "config": self.config,
            "ok": self.ok,
            "loaded": self.loaded,
            "instances_overridden": self.overridden,
            "problems": list(self.problems),
            "cases": len(self.cases),
            "compared": len(compared),
            "max_abs": max((case.max_abs or 0.0 for case in compared), default=None),
            "failures": [
                {"case": case.case, "protocol": case.protocol, "reason": case.reason}
                for case in self.cases
                if not case.ok
            ],
            "note": self.note,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Validation:
    """A release on a server."""

    release: str
    platform: str
    server: dict[str, Any]
    models: list[ModelValidation]
    reused: bool = False

    @property
    def ok(self) -> bool:
        """Whether every model is good."""
        return all(model.ok for model in self.models)

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "platform": self.platform,
            "server": self.server,
            "ok": self.ok,
            "reused": self.reused,
            "models": [model.to_json() for model in self.models],
        }


def validate(
    workspace: Workspace,
    *,
    platform_name: str | None = None,
    reference: str | None = None,
    choice: ServerChoice,
    reuse: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Validation:
    """Validate a release and keep the evidence. With ``reuse`` one that passed on such a server is not loaded again.

    Raises:
        ForgeError: there is no release, or no server; findings about models are in the result.
    """
    platform = workspace.platform(platform_name)
    folder = workspace.releases(platform)
    release = folder.find(reference)
    if reuse:
        known = _known(workspace, release, platform.name, choice)
        if known is not None:
            return known
    with folder.hold(release), open_server(workspace, release, choice, explicit=True, progress=progress) as server:
        loaded = load_all(release, server, progress)
        models = []
        for first in load_order(release):
            for entry in release.models():
                if entry["folder"] == first["folder"]:
                    progress(f"{entry['folder']}: golden cases")
                    models.append(validate_entry(release, entry, server, loaded[entry["folder"]]))
        described = server.describe()
    record(workspace, platform, release, described, models)
    return Validation(release.digest, platform.name, described, models)


def record(
    workspace: Workspace,
    platform: Platform,
    release: Release,
    described: Mapping[str, Any],
    models: Sequence[ModelValidation],
) -> None:
    """Keep what was found out about a release on a server as evidence."""
    evidence = workspace.evidence(platform)
    hardware = describe().to_json()
    for model in models:
        key = evidence_key(model.artifact, model.config, platform.name)
        document = {
            "release": release.digest,
            "server": dict(described),
            "hardware": hardware,
            "result": model.to_json(),
        }
        evidence.append("validation", model.folder, key, model.ok, document)


def _known(workspace: Workspace, release: Release, platform: str, choice: ServerChoice) -> Validation | None:
    """The result that the evidence already holds for every model, on a server of the same kind."""
    evidence = workspace.evidence(workspace.platform(platform))
    models = []
    server: dict[str, Any] = {}
    for entry in release.models():
        key = evidence_key(entry["artifact"], entry["config"], platform)
        found = evidence.latest("validation", entry["folder"], key)
        if found is None or not found["ok"] or not same_server(found["server"], choice):
            return None
        if found["release"] != release.digest:
            # Members, golden cases or server settings may differ: only the very release counts as proven.
            return None
        server = found["server"]
        row = found["result"]
        model = ModelValidation(
            entry["folder"], entry["name"], entry["version"], entry["artifact"], entry["config"], loaded=True
        )
        model.overridden, model.note = bool(row["instances_overridden"]), row["note"]
        worst = row["max_abs"]
        model.cases = [
            CaseResult(f"case {index}", "", True, max_abs=worst, compared=index < row["compared"])
            for index in range(row["cases"])
        ]
        models.append(model)
    return Validation(release.digest, platform, server, models, reused=True)


def validate_entry(
    release: Release, entry: Mapping[str, Any], server: LiveServer, loaded: Loaded, *, golden: bool = True
) -> ModelValidation:
    """Hold one loaded version of a folder to its config and, with ``golden``, to its golden cases."""
    model = ModelValidation(entry["folder"], entry["name"], entry["version"], entry["artifact"], entry["config"])
    model.overridden = loaded.overridden
    if loaded.error is not None:
        model.problems.append(str(loaded.error))
        return model
    clock = time.monotonic()
    model.loaded = True
    try:
        model.problems += served_differently(
            server.client, model.folder, model.version, loaded.published, overridden=model.overridden
        )
    except ForgeError as error:
        model.problems.append(str(error))
    if golden and entry["folder"] == entry["name"]:
        _golden(release, entry, server, model, loaded.published)
        kept = sequences.emulated(loaded.published, server.choice.kind)
        model.note = "; ".join(text for text in (model.note, kept) if text) or None
    else:
        model.note = f"answers are checked through '{entry['name']}'"
    model.seconds = loaded.seconds + time.monotonic() - clock
    return model


def _golden(
    release: Release, entry: Mapping[str, Any], server: LiveServer, model: ModelValidation, published: Any
) -> None:
    signature = Signature.from_json(entry["signature"])
    largest = int(entry["max_batch_size"])
    folder = release.golden_folder(entry["name"])
    sets = [read_cases(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    if entry["decoupled"]:
        model.note = "decoupled: its answers were not asked for"
        return
    if entry.get("tolerance"):
        sets = [replace(cases, tolerance=cases.tolerance or entry["tolerance"]) for cases in sets]
    for cases in sets:
        _ask(server, model, signature, cases, largest)
        _ask_sequences(server, model, signature, cases, published)
    compared = any(case.compared for case in model.cases)
    ensemble = None if compared else ensemble_folder(release, entry)
    if ensemble is not None:
        try:
            chained = chained_cases(release, ensemble, signature, largest, server.client)
        except ForgeError as error:
            model.note = f"no golden cases, and its members refuse generated inputs: {error.message}"
            return
        _ask(server, model, signature, chained, largest)
        model.note = "compared with its members, asked one after the other"
    elif not sets:
        model.note = "no golden cases: only loaded; declare `golden.cases` or `golden.ranges`"
    elif not compared:
        model.note = "no reference answers: shapes, types and finiteness only"


def _ask(server: LiveServer, model: ModelValidation, signature: Signature, cases: CaseSet, largest: int) -> None:
    for case in expand(cases, signature, largest):
        for protocol in PROTOCOLS:
            if server.speaks(protocol):
                model.cases.append(_run_case(server, model, signature, cases, case, protocol))


def _ask_sequences(
    server: LiveServer, model: ModelValidation, signature: Signature, cases: CaseSet, published: Any
) -> None:
    """The cases that are sequences, as many side by side as the model takes; over each protocol under the same ids."""
    chosen = [case for case in cases.cases if case.sequence]
    at_once = sequences.slots(published) if published.HasField("sequence_batching") else 1
    ranks = {tensor.name: 1 + len(tensor.shape) for tensor in (*signature.inputs, *signature.outputs)}
    number = 1 + secrets.randbelow(1 << 48)
    for protocol in PROTOCOLS:
        if not chosen or not server.speaks(protocol):
            continue
        answers = sequences.ask(
            server.client,
            model.folder,
            model.version,
            chosen,
            cases.datatypes,
            batched=signature.batched,
            at_once=at_once,
            protocol="grpc" if protocol == "grpc" else "http",
            first_id=number,
        )
        for case, outputs in answers:
            model.cases.append(
                CaseResult(case.name, protocol, False, outputs.message)
                if isinstance(outputs, ForgeError)
                else _judge(cases, case, protocol, outputs, ranks)
            )


def _run_case(
    server: LiveServer, model: ModelValidation, signature: Signature, cases: CaseSet, case: Case, protocol: str
) -> CaseResult:
    types = {name: cases.datatypes[name] for name in case.inputs}
    ranks = {tensor.name: len(tensor.shape) for tensor in (*signature.inputs, *signature.outputs)}
    try:
        outputs = server.client.infer(
            model.folder,
            {name: _with_rank(array, ranks[name]) for name, array in case.inputs.items()},
            protocol="grpc" if protocol == "grpc" else "http",
            version=str(model.version),
            datatypes=types,
        )
    except ForgeError as error:
        return CaseResult(case.name, protocol, False, error.message)
    return _judge(cases, case, protocol, outputs, ranks)


def _judge(
    cases: CaseSet, case: Case, protocol: str, outputs: Mapping[str, Any], ranks: Mapping[str, int]
) -> CaseResult:
    """The answers to a case against those that it expects."""
    differences: list[Difference] = []
    for name, expected in case.outputs.items():
        if name not in outputs:
            return CaseResult(case.name, protocol, False, f"output '{name}' is missing")
        found, wanted = outputs[name], _with_rank(expected, ranks[name])
        differences.append(compare(name, cases.datatypes[name], found, wanted, cases.tolerance))
    if not case.outputs:
        return _plausible(case.name, protocol, outputs)
    bad = next((item for item in differences if not item.ok), None)
    worst = max((item.max_abs for item in differences if item.max_abs is not None), default=None)
    return CaseResult(case.name, protocol, bad is None, None if bad is None else f"{bad.output}: {bad.reason}", worst)


def _with_rank(array: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    """A scalar of the model is served as one element: its config has ``dims: [1]``."""
    return array.reshape(*array.shape, 1) if array.ndim == rank - 1 else array


def _plausible(case: str, protocol: str, outputs: Mapping[str, Any]) -> CaseResult:
    import numpy as np

    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return CaseResult(case, protocol, False, f"output '{name}' has NaN or infinity", compared=False)
    return CaseResult(case, protocol, True, compared=False)
