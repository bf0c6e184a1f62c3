"""``gate``: perf_analyzer against the bounds of the spec, on a live server with the whole release loaded."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.actions.live import LiveServer, ServerChoice, embedded_runtime, open_server, same_server
from tritonforge.actions.load_data import load_data
from tritonforge.actions.loading import load_or_fail
from tritonforge.actions.served import served_differently
from tritonforge.actions.show import gate_key
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.digest import digest_of
from tritonforge.build.planning import wanted_on
from tritonforge.errors import CheckFailed, Interrupted, UsageError, did_you_mean
from tritonforge.interruption import interruptible
from tritonforge.measure import (
    GateEvidence,
    PerfRun,
    PerfTls,
    Slo,
    Verdict,
    describe,
    difference,
    judge,
    version,
    worst,
)
from tritonforge.measure import run as run_perf
from tritonforge.repository.release import Release
from tritonforge.spec.models import GateSpec
from tritonforge.spec.platform import Platform
from tritonforge.triton.tls import tls_context

if TYPE_CHECKING:
    from tritonforge.measure import GateResult, Level
    from tritonforge.triton.embedded.runtime import Runtime


_IN_ARGUMENTS: Final = (
    "perf_analyzer takes headers as arguments alone: while it ran, other users of this machine could read them in its "
    "list of processes"
)


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """One gate's verdict with its evidence; ``reused`` when that was measured earlier."""

    name: str
    verdict: Verdict
    evidence: GateEvidence
    file: Path
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "gate": self.name,
            "verdict": self.verdict.value,
            "file": str(self.file),
            "reused": self.reused,
            "evidence": self.evidence.to_json(),
        }


def run_gates(
    workspace: Workspace,
    *,
    platform_name: str | None,
    reference: str | None,
    names: Sequence[str],
    choice: ServerChoice,
    reuse: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[GateOutcome]:
    """Measure and judge the named gates (all of the platform's without names); the evidence is kept.

    With ``reuse`` a gate that passed on this very release, with these settings, on such a server and such a machine is
    not measured again.

    Raises:
        UsageError: no such gate, or none at all.
        EnvironmentLacks: no server, or no perf_analyzer that runs here.
    """
    platform = workspace.platform(platform_name)
    gates = chosen_gates(workspace, platform, names)
    folder = workspace.releases(platform)
    release = folder.find(reference)
    outcomes: dict[str, GateOutcome] = {}
    if reuse:
        for name, gate in gates.items():
            known = _known(workspace, platform, release, name, gate, choice)
            if known is not None:
                outcomes[name] = known
    left = {name: gate for name, gate in gates.items() if name not in outcomes}
    if left:
        runtime = embedded_runtime(progress)
        try:
            with (
                interruptible(),
                folder.hold(release),
                open_server(
                    workspace, release, choice, explicit=choice.kind != "connection", progress=progress
                ) as server,
            ):
                if server.running is not None:
                    load_or_fail(release, server, progress)
                else:
                    _check_served(release, server)
                for name, gate in left.items():
                    outcomes[name] = measure_gate(workspace, platform, release, name, gate, server, runtime, progress)
        except KeyboardInterrupt:
            raise Interrupted("the gate was interrupted", hint="run it again: nothing half-measured is kept") from None
    return [outcomes[name] for name in gates]


def _check_served(release: Release, server: LiveServer) -> None:
    """What is measured must be this release: somebody else's server may serve another one under the same names.

    Raises:
        CheckFailed: it does.
    """
    problems = []
    for entry in release.models():
        folder, version = str(entry["folder"]), int(entry["version"])
        server.load(folder, None)
        published = release.config(folder)
        found = served_differently(server.client, folder, version, published, overridden=False)
        problems += [f"{folder}: {problem}" for problem in found]
    if problems:
        raise CheckFailed(
            f"{server.connection.url} does not serve the release {release.digest[:12]}",
            details=problems[:8],
            hint="deploy the release there first, or gate the one that is there with --release",
        )


def overall(outcomes: Sequence[GateOutcome]) -> Verdict:
    """The worst verdict of all gates."""
    return worst([outcome.verdict for outcome in outcomes])


def chosen_gates(workspace: Workspace, platform: Platform, names: Sequence[str]) -> dict[str, GateSpec]:
    """The gates called ``names``; all of the platform's without any.

    Raises:
        UsageError: there is no such gate, or none at all.
    """
    gates = workspace.loaded.spec.gates
    for name in names:
        if name not in gates:
            raise UsageError(f"the spec has no gate '{name}'", hint=did_you_mean(name, gates))
    chosen = {name: gates[name] for name in names} or {
        name: gate for name, gate in gates.items() if wanted_on(gate.platforms, platform)
    }
    if not chosen:
        raise UsageError("the spec has no gates for this platform", hint="declare one under `gates:`")
    return chosen


def _settings_digest(gate: GateSpec) -> str:
    return digest_of(gate.model_dump(mode="json"))


def _known(
    workspace: Workspace, platform: Platform, release: Release, name: str, gate: GateSpec, choice: ServerChoice
) -> GateOutcome | None:
    found = workspace.evidence(platform).latest("gate", name, gate_key(release, platform))
    if (
        found is None
        or not found["ok"]
        or found["gate"] != _settings_digest(gate)
        or not same_server(found["server"], choice)
    ):
        return None
    evidence = GateEvidence.from_json(found["evidence"])
    if (evidence.hardware.cpu, evidence.hardware.threads) != (describe().cpu, describe().threads):
        return None
    return GateOutcome(name, evidence.verdict, evidence, Path(found["file"]), reused=True)


def measure_gate(
    workspace: Workspace,
    platform: Platform,
    release: Release,
    name: str,
    gate: GateSpec,
    server: LiveServer,
    runtime: Runtime,
    progress: Callable[[str], None],
    *,
    served_as: str | None = None,
) -> GateOutcome:
    """Measure one gate on a server that serves the release, judge it, and keep the evidence.

    ``served_as`` is what the gate's model is called on that server, where it has another name for now.
    """
    asked = served_as or gate.model
    address = server.connection.grpc if gate.protocol == "grpc" else server.connection.http
    if address is None:
        raise UsageError(f"the gate '{name}' asks over {gate.protocol}, and that address of the server is not known")
    slo = Slo(**gate.slo.model_dump())
    with tempfile.TemporaryDirectory(prefix="tritonforge-gate-") as work:
        data, shapes = load_data(
            release, gate.model, Path(work), batch_size=gate.batch_size, axes=gate.axes, asking="the gate"
        )
        run = PerfRun(
            program=runtime.perf_analyzer,
            model=asked,
            url=address if server.connection.tls is None or gate.protocol == "grpc" else f"https://{address}",
            work_dir=Path(work),
            env=runtime.perf_env(),
            protocol=gate.protocol,
            batch_size=gate.batch_size,
            shapes=shapes,
            input_data=data,
            measurement_interval_ms=gate.interval_ms,
            windows=gate.windows,
            headers=server.connection.headers,
            tls=None if (tls := server.connection.tls) is None else PerfTls(tls.ca, tls.cert, tls.key),
        )
        levels: list[Level] = []
        results: list[GateResult] = []
        notes: list[str] = [_IN_ARGUMENTS] if run.headers else []
        started = ended = ""
        # Counters are read around each level: one level's failures are not the others'.
        for concurrency in gate.concurrency:
            progress(f"{name}: concurrency {concurrency}")
            before = _metrics(server)
            measured = run_perf(dataclasses.replace(run, concurrency=(concurrency,)), progress)
            after = _metrics(server)
            failures = None if before is None or after is None else difference(before, after, asked)
            level = measured.level(concurrency)
            levels.append(level)
            results.append(judge(slo, level, failures))
            notes += measured.notes
            started, ended = started or measured.started, measured.ended
        described = server.describe()
        evidence = GateEvidence(
            model=gate.model,
            release=release.digest,
            platform=platform.name,
            server_version=described["version"],
            perf_analyzer_version=version(runtime.perf_analyzer, runtime.perf_env()),
            hardware=describe(),
            settings=dataclasses.replace(run, concurrency=tuple(gate.concurrency)).settings(),
            levels=tuple(levels),
            results=tuple(results),
            started=started,
            ended=ended,
            notes=tuple(dict.fromkeys(notes)),
            slo=gate.slo.model_dump(),
        )
    verdict = evidence.verdict
    ok = None if verdict is Verdict.INCONCLUSIVE else verdict is Verdict.PASS
    document = {"gate": _settings_digest(gate), "server": described, "evidence": evidence.to_json()}
    file = workspace.evidence(platform).append("gate", name, gate_key(release, platform), ok, document)
    return GateOutcome(name, verdict, evidence, file)


def _metrics(server: LiveServer) -> str | None:
    """The server's counters as Prometheus text; None where they are not served."""
    import httpx

    connection = server.connection
    url = connection.metrics_url
    if url is None:
        return None
    secured = url.startswith("https://")
    try:
        answer = httpx.get(
            url,
            timeout=10,
            trust_env=False,
            headers=dict(connection.headers) if secured else None,
            verify=tls_context(connection.tls) if secured and connection.tls is not None else False,
        )
        answer.raise_for_status()
    except (httpx.HTTPError, OSError, ValueError):
        return None
    return answer.text
