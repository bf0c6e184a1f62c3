"""``release show``: what a release holds, and what each model of it was proven on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonforge.actions.compose import evidence_key
from tritonforge.actions.workspace import Workspace
from tritonforge.repository.release import Release, entry_title
from tritonforge.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release with the evidence about it. ``proofs`` says by folder on what a model was proven, in words."""

    release: Release
    platform: Platform
    current: bool
    proofs: Mapping[str, str]
    evidence: Mapping[str, Mapping[str, Any]]
    gates: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {
            "digest": self.release.digest,
            "path": str(self.release.folder),
            "current": self.current,
            "release": dict(self.release.document),
            "proven_on": dict(self.proofs),
            "gates": {
                name: {"ok": gate["ok"], "at": gate["at"], "file": gate["file"]} for name, gate in self.gates.items()
            },
        }


def view_release(workspace: Workspace, platform_name: str | None, reference: str | None) -> ReleaseView:
    """A release and its evidence.

    Raises:
        UsageError: there is no such platform or release.
    """
    platform = workspace.platform(platform_name)
    folder = workspace.releases(platform)
    release = folder.find(reference)
    current = folder.current()
    evidence = workspace.evidence(platform)
    proofs: dict[str, str] = {}
    found: dict[str, dict[str, Any]] = {}
    for entry in release.models():
        key = evidence_key(entry["artifact"], entry["config"], platform.name)
        validation = evidence.latest("validation", entry["folder"], key)
        parity = evidence.latest("parity", entry["name"], evidence_key(entry["artifact"], None, platform.name))
        found[entry_title(entry)] = {"validation": validation, "parity": parity}
        proofs[entry_title(entry)] = _in_words(entry, validation, parity)
    gates = {}
    for name, gate in workspace.loaded.spec.gates.items():
        if gate.model in {entry["folder"] for entry in release.models()}:
            latest = evidence.latest("gate", name, gate_key(release, platform))
            if latest is not None:
                gates[name] = latest
    is_current = current is not None and current.digest == release.digest
    return ReleaseView(release, platform, is_current, proofs, found, gates)


def gate_key(release: Release, platform: Platform) -> dict[str, str]:
    """What a gate's evidence is about: all that was served together."""
    return {"release": release.digest, "platform": platform.name}


def _in_words(entry: Mapping[str, Any], validation: Mapping[str, Any] | None, parity: Mapping[str, Any] | None) -> str:
    if validation is None:
        before = "nothing yet" if parity is None else "its source, offline; no server yet"
        return before if entry["kind"] == "model" else "nothing yet"
    server = validation["server"]["title"]
    if not validation["ok"]:
        return f"FAILED on {server}"
    result = validation["result"]
    how = " with its instances moved to the CPU" if result["instances_overridden"] else ""
    if not result["compared"]:
        through = "" if entry["folder"] == entry["name"] else f"; answers are compared through '{entry['name']}'"
        return f"{server}{how}: loaded, no reference answers{through}"
    return f"{server}{how}, {result['compared']} answers compared"
