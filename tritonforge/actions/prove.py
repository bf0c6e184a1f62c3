"""Prove a newcomer on the target itself, at an address that no client knows: its answers, then its speed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tritonforge.actions.candidates import CandidateClient
from tritonforge.actions.gate import chosen_gates, measure_gate
from tritonforge.actions.live import LiveServer, ServerChoice, embedded_runtime
from tritonforge.actions.loading import load_all
from tritonforge.actions.validate import record, validate_entry
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import CheckFailed, Inconclusive
from tritonforge.measure import Verdict, worst
from tritonforge.repository.release import Release
from tritonforge.rollout.strategy import Candidate
from tritonforge.spec.platform import Platform
from tritonforge.triton.connection import Connection

Progress = Callable[[str], None]


def prove(
    workspace: Workspace,
    platform: Platform,
    release: Release,
    connection: Connection,
    *,
    answers: bool,
    gates: Sequence[str] | None,
    progress: Progress,
    among: Mapping[str, Candidate] | None = None,
) -> dict[str, Any]:
    """Ask the server at ``connection`` everything that proves the release; what the journal keeps of it.

    ``gates`` None are all of the platform's. The evidence is kept beside the release. With ``among`` only those folders
    are asked, each where it stands for now, and only the gates of their models.

    Raises:
        CheckFailed: it does not serve the release, answers wrongly or is too slow.
        Inconclusive: a gate allows no verdict.
    """
    found: dict[str, Any] = {}
    names = {name: candidate.folder for name, candidate in (among or {}).items()}
    with CandidateClient(connection, names) as client:
        server = LiveServer(ServerChoice(server=connection.url), client, None)
        loaded = load_all(release, server, progress)
        for name, candidate in (among or {}).items():
            loaded[name] = dataclasses.replace(loaded[name], published=candidate.config)
        models = []
        for entry in release.models():
            if among is not None and entry["folder"] not in among:
                continue
            progress(f"{entry['folder']}: {'golden cases' if answers else 'metadata'}")
            models.append(validate_entry(release, entry, server, loaded[entry["folder"]], golden=answers))
        record(workspace, platform, release, server.describe(), models)
        bad = [model for model in models if not model.ok]
        if bad:
            raise CheckFailed(
                f"the newcomer is not what was released: {', '.join(model.folder for model in bad)}",
                details=[
                    f"{model.folder}: {problem}"
                    for model in bad
                    for problem in [
                        *model.problems,
                        *(f"{case.case}: {case.reason}" for case in model.cases if not case.ok),
                    ][:3]
                ],
            )
        found["models"] = len(models)
        found["cases"] = sum(len(model.cases) for model in models)
        wanted = _gates(workspace, platform, gates)
        chosen = chosen_gates(workspace, platform, wanted) if wanted else {}
        if among is not None:
            chosen = {name: gate for name, gate in chosen.items() if gate.model in among}
        if chosen:
            runtime = embedded_runtime(progress)
            outcomes = [
                measure_gate(
                    workspace, platform, release, name, gate, server, runtime, progress, served_as=names.get(gate.model)
                )
                for name, gate in chosen.items()
            ]
            found["gates"] = {outcome.name: outcome.verdict.value for outcome in outcomes}
            verdict = worst([outcome.verdict for outcome in outcomes])
            if verdict is not Verdict.PASS:
                texts = [
                    f"gate {outcome.name} at concurrency {result.concurrency}: "
                    f"{item.name} {item.verdict.value}: {item.reason}"
                    for outcome in outcomes
                    for result in outcome.evidence.results
                    for item in result.conditions
                    if item.verdict is not Verdict.PASS
                ]
                kind = CheckFailed if verdict is Verdict.FAIL else Inconclusive
                raise kind(
                    "the newcomer did not pass its gates",
                    details=texts,
                    hint="`gates: []` of the target leaves them out; longer `windows` decide closer calls",
                )
    return found


def _gates(workspace: Workspace, platform: Platform, names: Sequence[str] | None) -> list[str]:
    from tritonforge.build.planning import wanted_on

    if names is not None:
        return list(names)
    return [name for name, gate in workspace.loaded.spec.gates.items() if wanted_on(gate.platforms, platform)]
