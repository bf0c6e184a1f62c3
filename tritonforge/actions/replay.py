"""``replay``: run kept failing cases again on the artefact that failed them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.artifact.store import LocalStore, default_home
from tritonforge.artifact.tensors import read_cases
from tritonforge.errors import Place, SpecError
from tritonforge.runners.runner import open_runner
from tritonforge.steps.verify.parity import REPLAY, CaseDifference, hold


@dataclass(frozen=True, slots=True)
class Replayed:
    """The cases of a folder on their artefact, as it computes them now."""

    artifact: str
    runner: str
    reference: str
    tolerance: Mapping[str, float] | None
    rows: tuple[CaseDifference, ...]

    @property
    def ok(self) -> bool:
        """Whether every output is within the tolerance now."""
        return all(row.difference.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "artifact": self.artifact,
            "runner": self.runner,
            "reference": self.reference,
            "tolerance": self.tolerance,
            "ok": self.ok,
            "rows": [row.to_json() for row in self.rows],
        }


def replay(folder: Path, store: LocalStore | None = None) -> Replayed:
    """Run the cases that a failed comparison kept.

    Raises:
        SpecError: the folder holds no kept cases, or the artefact is no longer in the store.
    """
    file = folder / REPLAY
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        digest, tolerance = str(document["artifact"]), document["tolerance"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(
            "there are no kept cases here",
            place=Place(file),
            found=str(error),
            expected="the folder that a failed comparison names",
        ) from None
    store = store or LocalStore(default_home() / "store")
    artifact = store.artifact(digest)
    if artifact is None:
        raise SpecError(
            "the artefact of these cases is no longer in the store",
            place=Place(file),
            found=digest[:12],
            hint="run `tritonforge build` again: it makes it, and keeps the cases anew if they still fail",
        )
    cases = read_cases(folder)
    rows: list[CaseDifference] = []
    with tempfile.TemporaryDirectory(prefix="tritonforge-replay-") as work:
        for path in artifact.files:
            store.place(artifact, path, Path(work) / path)
        runner = open_runner(artifact, Path(work))
        for case in cases.cases:
            rows += hold(runner, case, cases, tolerance)[1]
    return Replayed(digest, runner.title, cases.reference, tolerance, tuple(rows))
