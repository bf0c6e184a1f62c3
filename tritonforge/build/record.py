"""What the last build of a platform was made of, to say why the next one runs something. Losing it loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonforge.artifact.store import LocalStore
from tritonforge.build.graph import Graph
from tritonforge.build.key import key_of
from tritonforge.build.scheduler import NodeResult, inputs_of
from tritonforge.durable import write_json
from tritonforge.errors import ForgeError


@dataclass(slots=True)
class BuildRecord:
    """``nodes`` is the key, its material and the artifact by node id; ``composed`` the inputs of the release that
    followed."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    composed: str | None = None
    release: str | None = None

    def material(self) -> dict[str, Mapping[str, Any]]:
        """What keys were made of, by node id."""
        return {name: node["material"] for name, node in self.nodes.items()}

    def keys(self) -> list[str]:
        """The keys that garbage collection must keep."""
        return [node["key"] for node in self.nodes.values()]

    def update(self, results: Mapping[str, NodeResult], *, whole: bool) -> None:
        """Take over what succeeded; with ``whole`` nodes that are no longer in the graph are dropped."""
        fresh = {
            name: {"key": result.key, "material": dict(result.material), "artifact": result.artifact}
            for name, result in results.items()
            if result.artifact is not None
        }
        kept = {name: node for name, node in self.nodes.items() if not whole or name in results}
        self.nodes = {**kept, **fresh}

    def recall(self, graph: Graph, store: LocalStore) -> dict[str, NodeResult] | None:
        """The results of a graph whose every node has the key that it had; None where one has not.

        The store is asked only whether it still has the keys: the results are for a release that was made of them,
        and is whole.
        """
        results: dict[str, NodeResult] = {}
        for node in graph.nodes.values():
            known = self.nodes.get(node.id)
            if known is None:
                return None
            try:
                keyed = key_of(node, inputs_of(node, results))
            except ForgeError:
                return None
            if keyed.key != known["key"] or not store.is_bound(keyed.key):
                return None
            results[node.id] = NodeResult(node, "cached", keyed.key, known["artifact"], keyed.material)
        return results


def read_record(path: Path) -> BuildRecord:
    """The record, or an empty one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        nodes = {
            name: {"key": str(node["key"]), "material": dict(node["material"]), "artifact": str(node["artifact"])}
            for name, node in data["nodes"].items()
        }
        return BuildRecord(nodes, data.get("composed"), data.get("release"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return BuildRecord()


def write_record(path: Path, record: BuildRecord) -> None:
    """Write the record atomically."""
    data = {"schema": 2, "nodes": record.nodes, "composed": record.composed, "release": record.release}
    write_json(path, data, before="build.record.rename")
