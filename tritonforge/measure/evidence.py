"""What a gate measured and decided, as JSON that is kept beside releases and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.errors import SpecError
from tritonforge.measure.gate import GateResult, Verdict, worst
from tritonforge.measure.hardware import Hardware
from tritonforge.measure.level import Level

SCHEMA: Final = "tritonforge/gate-evidence/v1"


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """One gate of one model in one release on one machine; times are UTC, ISO 8601.

    ``release`` is the digest that the caller gives, ``settings`` what
    :meth:`tritonforge.measure.perf_run.PerfRun.settings` says, ``hardware`` the machine that ran the client (and the
    server, unless ``server_hardware`` names another).
    """

    model: str
    release: str
    platform: str
    server_version: str
    perf_analyzer_version: str
    hardware: Hardware
    settings: Mapping[str, Any]
    levels: tuple[Level, ...]
    results: tuple[GateResult, ...]
    started: str
    ended: str
    notes: tuple[str, ...] = ()
    server_hardware: Hardware | None = None
    slo: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst of all levels; a level that was measured but not judged makes it inconclusive."""
        judged = {result.concurrency for result in self.results}
        missing = [Verdict.INCONCLUSIVE for level in self.levels if level.concurrency not in judged]
        return worst([result.verdict for result in self.results] + missing)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model,
            "release": self.release,
            "platform": self.platform,
            "server_version": self.server_version,
            "perf_analyzer_version": self.perf_analyzer_version,
            "hardware": self.hardware.to_json(),
            "server_hardware": None if self.server_hardware is None else self.server_hardware.to_json(),
            "settings": dict(self.settings),
            "slo": dict(self.slo),
            "levels": [level.to_json() for level in self.levels],
            "results": [result.to_json() for result in self.results],
            "verdict": self.verdict.value,
            "started": self.started,
            "ended": self.ended,
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> GateEvidence:
        """Rebuild what :meth:`to_json` wrote.

        Raises:
            SpecError: another schema, or a field is missing or of another kind.
        """
        if data.get("schema") != SCHEMA:
            raise SpecError("this is no gate evidence", expected=SCHEMA, found=str(data.get("schema")))
        try:
            server = data.get("server_hardware")
            return GateEvidence(
                **{
                    name: data[name]
                    for name in ("model", "release", "platform", "server_version", "perf_analyzer_version", "settings")
                },
                hardware=Hardware.from_json(data["hardware"]),
                levels=tuple(Level.from_json(item) for item in data["levels"]),
                results=tuple(GateResult.from_json(item) for item in data["results"]),
                started=data["started"],
                ended=data["ended"],
                notes=tuple(data.get("notes", ())),
                server_hardware=None if server is None else Hardware.from_json(server),
                slo=data.get("slo", {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError("the gate evidence is damaged", found=f"{type(error).__name__}: {error}") from error
