"""What a composed release depends on, as data: where it is unchanged, so is the release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge import __version__
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.digest import digest_bytes, digest_file
from tritonforge.build.graph import Graph
from tritonforge.build.scheduler import NodeResult
from tritonforge.repository.template import house_templates
from tritonforge.sources import case_files
from tritonforge.spec.lock import Lock
from tritonforge.spec.models import GoldenSpec
from tritonforge.spec.platform import Platform


def compose_inputs(
    workspace: Workspace, platform: Platform, lock: Lock, graph: Graph, results: Mapping[str, NodeResult]
) -> dict[str, Any]:
    """Everything that :meth:`Composer.compose` depends on, as data: where it is unchanged, so is the release."""
    spec = workspace.loaded.spec
    case_digests: dict[str, str] = {}
    for name, member in spec.servables().items():
        for file in _case_paths(workspace, name, member.golden):
            case_digests[f"{name}:{file}"] = digest_file(file)
    return {
        "tritonforge": __version__,
        "spec": spec.model_dump(mode="json", exclude={"store"}),  # where things come from changes none of them
        "platform": platform.to_json(),
        "versions": numbers(lock, platform),
        "artifacts": {node_id: result.artifact for node_id, result in results.items()},
        "templates": _template_digests(workspace),
        "cases": case_digests,
        "models": {
            name: [[line.label, line.artifact, line.backend] for line in nodes.served]
            for name, nodes in graph.models.items()
        },
    }


def numbers(lock: Lock, platform: Platform) -> dict[str, dict[str, str]]:
    """The version numbers of a platform, as data."""
    return {
        folder: {str(number): digest for number, digest in known.items()}
        for folder, known in lock.versions.get(platform.name, {}).items()
    }


def _template_digests(workspace: Workspace) -> dict[str, str]:
    """All templates that a config or a router may be made from: the house's, the declared folders', the spec's own."""
    folder = workspace.loaded.folder.resolve()
    roots = [house_templates() / kind for kind in ("config", "routers")]
    roots += [(folder / path).resolve() for path in workspace.loaded.spec.templates]
    digests: dict[str, str] = {}
    for root in [*roots, folder]:
        for base, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith((".", "build", "__pycache__"))]
            for name in names:
                if name.endswith(".j2"):
                    file = Path(base) / name
                    digests[str(file)] = digest_bytes(file.read_bytes())
    return digests


def _case_paths(workspace: Workspace, name: str, golden: GoldenSpec) -> list[Path]:
    if not golden.cases:
        return []
    kind = "models" if name in workspace.loaded.spec.models else "ensembles"
    root = workspace.loaded.folder
    files = case_files.find(root, golden.cases, workspace.loaded.place(kind, name, "golden", "cases"))
    return [*files, *case_files.referenced(case_files.read(files, root), root)]
