"""What can be told of a model without loading it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonforge.errors import Place, UsageError, did_you_mean

Dim = int | str


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or an output: ``datatype`` in Triton's words where it has one; ``shape`` None where no rank is said."""

    name: str
    datatype: str
    shape: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}[{'…' if self.shape is None else ','.join(map(str, self.shape))}]"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "datatype": self.datatype,
            "shape": None if self.shape is None else list(self.shape),
        }


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of one inference; a multiplication with its addition are two.

    ``unknown`` counts the operators whose work could not be told, because a shape is not known.
    """

    total: int
    by_operator: Mapping[str, int]
    unknown: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"total": self.total, "by_operator": dict(self.by_operator), "unknown": dict(self.unknown)}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes for one inference; ``activations`` None where no shapes are known, and a lower bound beside ``unsized``."""

    weights: int
    activations: int | None = None
    unsized: int = 0

    def to_json(self) -> dict[str, Any]:
        total = None if self.activations is None else self.weights + self.activations
        return {
            "weights": self.weights,
            "activations": self.activations,
            "total": total,
            "unsized_values": self.unsized,
        }


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """All that ``tritonforge inspect`` tells of a file.

    ``sizes`` has the size that was taken for each dynamic axis. ``parameters`` counts elements of weights;
    ``operators`` maps names to numbers of nodes (layers, for Keras). ``versions`` holds opset, producer and the like.
    ``custom`` names operators that no public runtime has. ``globals`` is what unpickling would import.
    ``problems`` says what keeps the model from being served, such as missing files; ``notes`` what a reader must know.
    """

    format: str
    path: Path
    files: Mapping[str, int]
    inputs: tuple[TensorFacts, ...] | None = None
    outputs: tuple[TensorFacts, ...] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    parameters: int | None = None
    weight_types: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, int] = field(default_factory=dict)
    custom: tuple[str, ...] = ()
    flops: Flops | None = None
    memory: Memory | None = None
    versions: Mapping[str, str | int] = field(default_factory=dict)
    globals: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        def tensors(items: tuple[TensorFacts, ...] | None) -> list[dict[str, Any]] | None:
            return None if items is None else [item.to_json() for item in items]

        return {
            "format": self.format,
            "path": str(self.path),
            "size": self.size,
            "files": dict(self.files),
            "inputs": tensors(self.inputs),
            "outputs": tensors(self.outputs),
            "axes": dict(self.sizes),
            "parameters": self.parameters,
            "weight_types": dict(self.weight_types),
            "operators": dict(self.operators),
            "functions": dict(self.functions),
            "custom_operators": list(self.custom),
            "flops": None if self.flops is None else self.flops.to_json(),
            "memory": None if self.memory is None else self.memory.to_json(),
            "versions": dict(self.versions),
            "globals": list(self.globals),
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def dynamic_axes(tensors: Iterable[TensorFacts]) -> tuple[str, ...]:
    """The names of dynamic axes, each once, in order."""
    return tuple(dict.fromkeys(dim for item in tensors for dim in item.shape or () if isinstance(dim, str)))


def axis_sizes(dynamic: Iterable[str], given: Mapping[str, int], place: Place) -> dict[str, int]:
    """The size of each dynamic axis: the given one, otherwise 1.

    Raises:
        UsageError: a given axis is none of the model's.
    """
    known = list(dict.fromkeys(dynamic))
    for name in given:
        if name not in known:
            raise UsageError(
                f"the model has no dynamic axis '{name}'",
                place=place,
                expected=f"one of {', '.join(known)}" if known else "no --axis: nothing here tells of a dynamic axis",
                found=name,
                hint=did_you_mean(name, known),
            )
    return {name: given.get(name, 1) for name in known}


def files_below(path: Path) -> dict[str, int]:
    """Bytes of the file, or of each file below the folder (links are not followed), by POSIX path."""
    if not path.is_dir():
        return {path.name: path.stat().st_size}
    found = {}
    for folder, folders, names in path.walk() if hasattr(path, "walk") else _walk(path):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        for name in sorted(names):
            file = folder / name
            if file.is_file():
                found[file.relative_to(path).as_posix()] = file.stat().st_size
    return found


def _walk(path: Path) -> Iterable[tuple[Path, list[str], list[str]]]:
    """``Path.walk`` for Python 3.11."""
    import os

    for folder, folders, names in os.walk(path):
        yield Path(folder), folders, names
