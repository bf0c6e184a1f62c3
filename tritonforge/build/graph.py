"""The steps that a spec asks for on one platform, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonforge.errors import ForgeError
from tritonforge.sources.resolve import SourceFile
from tritonforge.spec.conversion.effective import Conversion


@dataclass(frozen=True, slots=True)
class Node:
    """One step of one model: ``inputs`` are other nodes by role, ``sources`` files by the path that the step sees."""

    id: str
    model: str
    step: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, SourceFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One way from the source to something served: ``artifact`` is the node whose result Triton loads.

    ``label`` is the variant's or version's name, empty for the only one. ``tolerance`` is how far a served answer may
    be from its reference, None where the precision decides.
    """

    label: str
    backend: str
    artifact: str
    parity: str | None
    tolerance: Mapping[str, float] | None
    conversion: Conversion


@dataclass(frozen=True, slots=True)
class ModelNodes:
    """Where a model's results come from. ``kind`` is what the source is, ``format`` what its imported artifact is.

    ``lines`` are all that are built; ``served`` those that a release gets: the chosen variant, or every version.
    ``base`` has the config as it was given, for models that are served as they are.
    """

    kind: str
    format: str
    imported: str
    lines: tuple[Line, ...]
    served: tuple[Line, ...]
    golden: str | None = None
    folder_files: str | None = None
    chosen_by: str | None = None
    base: str | None = None


@dataclass(slots=True)
class Graph:
    """Nodes in an order in which each stands after its inputs; ``errors`` are of models that could not be planned."""

    nodes: dict[str, Node] = field(default_factory=dict)
    models: dict[str, ModelNodes] = field(default_factory=dict)
    errors: dict[str, ForgeError] = field(default_factory=dict)
    _of_model: dict[str, list[Node]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes.values():
            self._of_model.setdefault(node.model, []).append(node)

    def add(self, node: Node) -> str:
        """Add a node; its id."""
        self.nodes[node.id] = node
        self._of_model.setdefault(node.model, []).append(node)
        return node.id

    def of_model(self, name: str) -> Sequence[Node]:
        """The nodes that were added for a model."""
        return self._of_model.get(name, ())

    def released(self) -> frozenset[str]:
        """The nodes whose files a release or its evidence is made of. What only steps read may stay elsewhere."""
        wanted: list[str | None] = []
        for nodes in self.models.values():
            wanted += [line.artifact for line in nodes.served]
            wanted += [line.parity for line in nodes.lines]
            wanted += [nodes.golden, nodes.folder_files]
        return frozenset(node for node in wanted if node is not None)
