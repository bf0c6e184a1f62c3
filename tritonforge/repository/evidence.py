"""What was measured, kept beside releases: append-only, keyed by (artifact, config, platform)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.digest import digest_of
from tritonforge.durable import disk_errors, write_json

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """One measurement. ``kind`` is ``parity``, ``validation`` or ``gate``; ``ok`` is None where it is inconclusive."""

    kind: str
    subject: str
    key: Mapping[str, str]
    ok: bool | None
    at: str
    document: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "subject": self.subject,
            "key": dict(self.key),
            "ok": self.ok,
            "at": self.at,
            **self.document,
        }


class EvidenceFolder:
    """``build/<platform>/evidence/<kind>/<subject>/<key>/<time>.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(
        self, kind: str, subject: str, key: Mapping[str, str], ok: bool | None, document: Mapping[str, Any]
    ) -> Path:
        """Add a measurement; the file that holds it."""
        now = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}-{os.getpid()}"
        path = self._folder(kind, subject, key) / f"{stamp}.json"
        with disk_errors("cannot keep the evidence", path):
            write_json(path, Evidence(kind, subject, key, ok, at, document).to_json(), before="evidence.rename")
        return path

    def latest(self, kind: str, subject: str, key: Mapping[str, str]) -> dict[str, Any] | None:
        """The newest measurement of exactly this, or None."""
        folder = self._folder(kind, subject, key)
        for path in sorted(folder.glob("*.json"), reverse=True) if folder.is_dir() else []:
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(data, dict) and data.get("key") == dict(key):
                return {**data, "file": str(path)}
        return None

    def _folder(self, kind: str, subject: str, key: Mapping[str, str]) -> Path:
        return self.root / kind / subject / digest_of(dict(key))[:32]
