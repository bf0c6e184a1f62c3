"""An artifact: an immutable set of files with a manifest that names their digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tritonforge.artifact.digest import digest_of
from tritonforge.artifact.signature import Signature
from tritonforge.errors import InternalError


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact; ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """``format`` names what it is (``onnx``, ``python``, ``golden``, ``parity``); paths are POSIX and relative."""

    format: str
    files: Mapping[str, FileEntry]
    signature: Signature | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "format": self.format,
            "files": {path: {"sha256": entry.sha256, "size": entry.size} for path, entry in sorted(self.files.items())},
            "signature": None if self.signature is None else self.signature.to_json(),
            "metadata": dict(self.metadata),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Artifact:
        return Artifact(
            format=data["format"],
            files={path: FileEntry(entry["sha256"], entry["size"]) for path, entry in data["files"].items()},
            signature=None if data["signature"] is None else Signature.from_json(data["signature"]),
            metadata=data["metadata"],
        )

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the manifest."""
        return digest_of(self.to_json())


@dataclass(slots=True)
class Draft:
    """What a step hands over: its files lie in the staging folder that it was given."""

    format: str
    signature: Signature | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def inside(root: Path, relative: str) -> Path:
    """``root / relative``, where that stays inside ``root``.

    Raises:
        InternalError: it does not. Paths that users write are checked, with their own message, where they are read.
    """
    if not is_inside(relative):
        raise InternalError(f"the path '{relative}' leaves its folder")
    return root / relative


def is_inside(relative: str) -> bool:
    """Whether a relative POSIX path stays below where it starts."""
    path = PurePosixPath(relative)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in relative
