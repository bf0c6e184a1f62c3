"""The account of a conversion: what was converted, how near the result is to its source, and with what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonforge import __version__
from tritonforge.actions.conversion_spec import Wanted
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.build.graph import Graph, Line
from tritonforge.build.scheduler import NodeResult
from tritonforge.errors import CheckFailed
from tritonforge.spec.lock import Lock
from tritonforge.steps.verify.parity import REPORT

SCHEMA: Final = 1


def made_by(store: LocalStore, result: NodeResult) -> Artifact:
    """The artifact of a step's result.

    Raises:
        CheckFailed: it is gone from the store.
    """
    artifact = None if result.artifact is None else store.artifact(result.artifact)
    if artifact is None:
        raise CheckFailed("the result is gone from the store", hint="run the command again")
    return artifact


def served_files(artifact: Artifact) -> list[str]:
    """The files that are handed over: those that a server reads, not those that only prove them."""
    left = set(artifact.metadata.get("not_served", ()))
    return [path for path in sorted(artifact.files) if path not in left]


def account_of(
    wanted: Wanted,
    graph: Graph,
    line: Line,
    results: Mapping[str, NodeResult],
    artifact: Artifact,
    store: LocalStore,
    lock: Lock,
) -> dict[str, Any]:
    """What was converted, how near the result is, and with what; the same again for the same model and tools."""
    (nodes,) = graph.models.values()
    sources = graph.nodes[nodes.imported].sources
    return {
        "schema": SCHEMA,
        "tritonforge": __version__,
        "model": {
            "name": wanted.name,
            "source": wanted.model if wanted.path is None else wanted.path.name,
            "revision": next((item.version for item in lock.sources.values()), None),
            "kind": nodes.kind,
            "files": {path: file.to_json() for path, file in sorted(sources.items())},
        },
        "to": wanted.to,
        "backend": line.backend,
        "format": artifact.format,
        "artifact": artifact.digest,
        "files": {
            path: {"sha256": artifact.files[path].sha256, "size": artifact.files[path].size}
            for path in served_files(artifact)
        },
        "signature": None if artifact.signature is None else artifact.signature.to_json(),
        "comparison": None if line.parity is None else _comparison(made_by(store, results[line.parity]), store),
        "steps": [
            {"step": item.node.step, "key": item.key, "tools": dict(item.material.get("tools", {}))}
            for item in results.values()
        ],
    }


def is_account(path: Path) -> bool:
    """Whether a file is the account of some conversion."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and {"schema", "tritonforge", "to", "artifact", "comparison"} <= said.keys()


def _comparison(parity: Artifact, store: LocalStore) -> dict[str, Any]:
    """What was compared, and the largest difference of each output over all cases."""
    report = json.loads(store.blob(parity.files[REPORT].sha256).read_bytes())
    by_output: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        by_output.setdefault(row["output"], []).append(row)
    return {
        "reference": report["reference"],
        "runner": report["runner"],
        "tolerance": report["tolerance"],
        "cases": len({row["case"] for row in report["rows"]}),
        "max_abs": parity.metadata["max_abs"],
        "outputs": {name: _worst(rows) for name, rows in by_output.items()},
    }


def _worst(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def figures(name: str) -> list[float]:
        return [row[name] for row in rows if row[name] is not None]

    return {
        **{name: max(figures(name), default=None) for name in ("max_abs", "max_rel")},
        **{name: min(figures(name), default=None) for name in ("cosine", "agreement")},
    }
