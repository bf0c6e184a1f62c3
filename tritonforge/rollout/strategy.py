"""What every strategy can do with one rollout, and the numbers that pace it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tritonforge.rollout.analysis import Bounds
from tritonforge.triton.connection import Connection

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a model of a release can be asked before it has its own name: its folder there, and its config there (a
    ``ModelConfig``)."""

    folder: str
    config: Any


class Prove(Protocol):
    """Validates and gates a newcomer at a private address; returns what the journal keeps of it."""

    def __call__(
        self, connection: Connection, progress: Progress, among: Mapping[str, Candidate] | None = None
    ) -> Mapping[str, Any]:
        """Prove the whole release, or only the folders ``among``, each where it can be asked."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The spec's `rollout`, as numbers: weights in percent, times in seconds."""

    weights: tuple[int, ...] = (5, 25, 50, 100)
    hold: float = 5.0
    wait: float = 60.0
    bounds: Bounds = field(default_factory=lambda: Bounds(20, 0.0, 2.0, 5.0))
    ready: float = 300.0
    drain: float = 30.0
    deadman: float = 60.0
    keep_warm: bool = True
    retention: int = 3
    restart: bool = False


class Strategy(Protocol):
    """One rollout. Every method can be repeated after any interruption."""

    def run(self, done: Mapping[str, Any]) -> None:
        """Take it to the commit, going on after the steps that are ``done``."""

    def tidy(self) -> None:
        """What comes after the commit; ends with the event ``finished``."""

    def undo(self, reason: str) -> None:
        """Go back to what was committed before; ends with the event ``undone``."""
