"""``release.json``: what a release holds and what it was made from. No time and no machine: those are evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.signature import Signature
from tritonforge.build.graph import Graph
from tritonforge.build.scheduler import NodeResult
from tritonforge.repository.config import GeneratedConfig
from tritonforge.repository.release import SCHEMA, Content, Stored
from tritonforge.repository.server_args import server_arguments
from tritonforge.spec.models import ForgeSpec
from tritonforge.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class Composed:
    """One version of a folder of the repository, ready to be written.

    ``kind`` is ``model``, ``ensemble`` or ``router``. ``label`` is the variant's or version's name in the spec;
    ``tolerance`` is how far served answers may be from their references, where the conversion decides that.
    """

    name: str
    folder: str
    kind: str
    backend: str
    version: int
    artifact: str
    config: GeneratedConfig
    signature: Signature
    format: str
    label: str = ""
    tolerance: Mapping[str, float] | None = None

    @property
    def max_batch_size(self) -> int:
        """0 where there is no batching."""
        return int(self.config.message.max_batch_size)

    @property
    def decoupled(self) -> bool:
        """Whether a request may get any number of responses."""
        return bool(self.config.message.model_transaction_policy.decoupled)


def release_document(
    spec: ForgeSpec,
    platform: Platform,
    parts: Iterable[Composed],
    files: Mapping[str, Content],
    made_from: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The document; ``files`` are all of the release by path, ``made_from`` the steps behind each model by name."""
    parts = list(parts)
    models: dict[str, dict[str, Any]] = {}
    golden: dict[str, dict[str, dict[str, Any]]] = {}
    for path, content in sorted(files.items()):
        top, name, rest = path.split("/", 2)
        if top == "models":
            models.setdefault(name, {})[rest] = _entry(content)
        else:
            kind, _, file = rest.partition("/")
            golden.setdefault(name, {}).setdefault(kind, {})[file] = _entry(content)
    others: dict[str, set[str]] = {}
    for part in parts:
        others.setdefault(part.folder, set()).add(str(part.version))
    return {
        "schema": SCHEMA,
        "name": spec.name,
        "platform": platform.to_json(),
        "server": {"arguments": server_arguments(spec.server)},
        "models": [
            {
                "name": part.name,
                "folder": part.folder,
                "kind": part.kind,
                "format": part.format,
                "backend": part.backend,
                "version": part.version,
                "artifact": part.artifact,
                "config": digest_bytes(part.config.text.encode()),
                "signature": part.signature.to_json(),
                "max_batch_size": part.max_batch_size,
                "decoupled": part.decoupled,
                **({"label": part.label} if part.label else {}),
                **({} if part.tolerance is None else {"tolerance": dict(part.tolerance)}),
                "files": _own_files(models[part.folder], part.version, others[part.folder]),
                "made_from": made_from.get(part.name, []) if part.kind == "model" else [],
            }
            for part in sorted(parts, key=lambda item: (item.folder, item.version))
        ],
        "golden": golden,
    }


def steps_behind(graph: Graph, results: Mapping[str, NodeResult]) -> dict[str, list[dict[str, Any]]]:
    """Key, sources and tools of every step, by model, in the graph's order."""
    made: dict[str, list[dict[str, Any]]] = {}
    for node in graph.nodes.values():
        result = results[node.id]
        made.setdefault(node.model, []).append(
            {
                "step": node.step,
                "key": result.key,
                "sources": {path: file.sha256 for path, file in node.sources.items()},
                "tools": dict(result.material.get("tools", {})),
            }
        )
    return made


def _own_files(files: Mapping[str, Any], version: int, served: set[str]) -> dict[str, Any]:
    """The files of the folder without those of its other versions that are ``served``, which have entries of their own.

    A version that the config's policy leaves out has none: its files are everybody's.
    """
    return {
        path: entry
        for path, entry in files.items()
        if (top := path.split("/", 1)[0]) not in served or "/" not in path or top == str(version)
    }


def _entry(content: Content) -> dict[str, Any]:
    if isinstance(content, Stored):
        entry = content.artifact.files[content.path]
        return {"sha256": entry.sha256, "size": entry.size}
    return {"sha256": digest_bytes(content), "size": len(content)}
