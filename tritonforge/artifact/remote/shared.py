"""The store that a team shares: what one machine made, others fetch instead of making it again.

It stands behind the local store, and a build never depends on it: whatever is wrong with it is said once, and the
build goes on as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tritonforge.artifact.remote.link import Link, SharedSettings
from tritonforge.artifact.remote.reading import Reading
from tritonforge.artifact.remote.record import RemoteRecord
from tritonforge.artifact.remote.writing import Writing
from tritonforge.artifact.store import KeyRecord, LocalStore


@dataclass(frozen=True, slots=True)
class SharedOutcome:
    """What went to and fro: counts of steps, and bytes. ``left`` are steps that are still to be sent."""

    remote: str
    fetched: int
    fetched_bytes: int
    sent: int
    sent_bytes: int
    left: int
    refused: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in self.__slots__
        }


class SharedStore:
    """One build's dealings with the team's store (see :class:`Reading` and :class:`Writing`)."""

    def __init__(
        self, settings: SharedSettings, local: LocalStore, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings = settings
        self._link = Link(settings, warn)
        self._reading = Reading(self._link, local)
        self._writing = Writing(self._link, local)

    def find(self, key: str, facets: Mapping[str, str], name: str, *, whole: bool) -> Future[KeyRecord | None]:
        """What the team knows of a key; bound in the local store, with ``whole`` its files too."""
        return self._reading.find(key, facets, name, whole=whole)

    def bring(self, names: Mapping[str, str]) -> Future[bool]:
        """Have the files of keys here that :meth:`find` left away; false where they cannot be had."""
        return self._reading.bring(names)

    def look(self, key: str, facets: Mapping[str, str], name: str) -> RemoteRecord | None:
        """What the team knows of a key, without taking any of it in."""
        return self._reading.look(key, facets, name)

    def stood_idle(self, seconds: float) -> None:
        """The machine had nothing to do but wait for this store."""
        self._reading.stood_idle(seconds)

    def expect(self, key: str, *, anew: bool = False) -> None:
        """A step begins whose result is to be sent, by the next build if this one is killed."""
        self._writing.expect(key, anew=anew)

    def keep(self, key: str, *, anew: bool = False) -> None:
        """Send what an expected step made, in the background; ``anew`` replaces what is there."""
        self._writing.keep(key, anew=anew)

    def keep_leftovers(self) -> None:
        """Send what earlier builds could not."""
        self._writing.keep_leftovers()

    def finish(self, progress: Callable[[int, int], None] = lambda steps, size: None) -> None:
        """Wait until all is sent, as long as that goes on; what is not sent then, the next build sends."""
        self._writing.finish(progress)

    def stop(self) -> None:
        """Let go of everything as it is."""
        self._writing.stop()
        self._link.leave(None)

    def outcome(self) -> SharedOutcome:
        """What happened until now."""
        return SharedOutcome(
            self.settings.name,
            self._reading.fetched,
            self._reading.fetched_bytes,
            self._writing.sent,
            self._writing.sent_bytes,
            self._writing.left,
            tuple(self._reading.refused),
            tuple(self._link.warnings),
        )
