"""What reading a bundle found, and whether it may be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.errors import CheckFailed
from tritonforge.repository.bundle_manifest import Manifest
from tritonforge.repository.bundle_signature import PublicKey


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a bundle; ``path`` names the file in it."""

    what: str
    path: str | None = None
    expected: str | None = None
    found: str | None = None

    def to_json(self) -> dict[str, str | None]:
        return {"what": self.what, "path": self.path, "expected": self.expected, "found": self.found}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading a bundle found. ``signer`` made a signature that holds; ``trusted`` is None without keys to ask."""

    file: Path
    manifest: Manifest | None
    problems: tuple[Problem, ...]
    signer: PublicKey | None
    trusted: bool | None
    size: int

    @property
    def ok(self) -> bool:
        """Whether it may be used."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "ok": self.ok,
            "file": str(self.file),
            "size": self.size,
            "release": None if manifest is None else manifest.release,
            "name": None if manifest is None else manifest.name,
            "platform": None if manifest is None else manifest.platform,
            "image": None if manifest is None else manifest.image.model_dump(),
            "files": None if manifest is None else len(manifest.files),
            "bytes": None if manifest is None else manifest.size,
            "signature": {
                "signer": None if self.signer is None else self.signer.fingerprint,
                "trusted": self.trusted,
            },
            "problems": [problem.to_json() for problem in self.problems],
        }


def settle(verdict: Verdict) -> Manifest:
    """The manifest of a bundle that may be used.

    Raises:
        CheckFailed: it may not; with all that is wrong.
    """
    if verdict.manifest is not None and verdict.ok:
        return verdict.manifest
    lines: Sequence[str] = [
        ": ".join(part for part in (problem.path, problem.what) if part)
        + (f" (expected {problem.expected}, found {problem.found})" if problem.expected and problem.found else "")
        + (f" ({problem.found})" if problem.found and not problem.expected else "")
        for problem in verdict.problems
    ]
    raise CheckFailed(
        f"the bundle {verdict.file} is not to be used", details=lines, hint="have it exported and sent again"
    )
