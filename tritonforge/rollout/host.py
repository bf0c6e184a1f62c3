"""What two-slot targets have in common: somewhere that runs a server a slot, and a proxy before them.

The strategies know only this; each target implements it (``targets/``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from tritonforge.artifact.digest import digest_of
from tritonforge.rollout.place import Place
from tritonforge.triton.connection import Connection

SLOTS: Final = ("blue", "green")


@dataclass(frozen=True, slots=True)
class ServerStart:
    """What a server is started with: the release there, Triton's own arguments, and the image (by digest where known).

    ``control`` is Triton's model control mode; ``models`` is the repository, relative to the target's root.
    """

    release: str
    arguments: tuple[str, ...] = ()
    image: str | None = None
    control: str = "none"
    models: str = ""
    settings: Mapping[str, Any] | None = None
    """What else decides how it runs (limits, devices, environment): in the fingerprint, so a change is a new start."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal starts."""
        return digest_of(
            [self.release, list(self.arguments), self.image, self.control, self.models, dict(self.settings or {})]
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "release": self.release,
            "arguments": list(self.arguments),
            "image": self.image,
            "control": self.control,
            "models": self.models,
            "settings": dict(self.settings or {}),
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ServerStart:
        """The start that :meth:`to_json` wrote."""
        return ServerStart(
            str(data["release"]),
            tuple(data["arguments"]),
            data["image"],
            str(data["control"]),
            str(data["models"]),
            data["settings"] or None,
        )


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One slot as it runs: ``fingerprint`` is that of its start; ``image`` what really runs; ``words`` what people
    read (``running since …``, ``exited with 1``)."""

    running: bool
    fingerprint: str | None = None
    release: str | None = None
    image: str | None = None
    started: str | None = None
    restarts: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the proxy finds a slot; ``resolve`` when the host is a name that may come to mean another address."""

    host: str
    http: int
    grpc: int
    metrics: int
    resolve: bool = False


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The proxy as it runs."""

    running: bool
    image: str | None = None
    words: str = ""


class Host(Protocol):
    """Runs the servers and the proxy of one target. Every method can be repeated."""

    @property
    def place(self) -> Place:
        """The target's disk."""

    def prepare(self) -> None:
        """Have everything there that outlives rollouts: the disk, the network, the agent's watch."""

    def resolve_image(self) -> str | None:
        """The serving image by its digest (or its id, where it has none); fetched when absent. None where there is no
        image.

        Raises:
            EnvironmentLacks: it cannot be had.
        """

    def settings(self) -> Mapping[str, Any]:
        """What else decides how a server runs there, as plain data without secrets."""

    def start(self, slot: str, start: ServerStart) -> None:
        """Have the slot run exactly this: nothing is done when it does; anything else there is stopped first."""

    def stop(self, slot: str, grace: float) -> None:
        """End the slot's server: requests in flight get ``grace`` seconds."""

    def status(self, slot: str) -> ServerStatus:
        """What the slot does."""

    def reach(self, slot: str) -> AbstractContextManager[Connection]:
        """The slot's private address, for its proof; HTTP, gRPC and metrics."""

    def address(self, slot: str) -> Address:
        """The slot's address as the proxy sees it."""

    def control(self) -> list[str]:
        """The proxy's runtime API as the agent sees it: ``unix:PATH`` or ``HOST:PORT``."""

    def proxy_up(self, config: str) -> None:
        """Have the proxy run; when it runs already with another config (beside weights), have it take this one.

        Raises:
            CheckFailed: the proxy refuses the config; it goes on with the old one.
        """

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        """Have a proxy that starts anew begin with these weights, which stand in ``config`` too."""

    def settling(self, config: str) -> list[dict[str, Any]]:
        """The same as operations of the agent, for the dead-man timer; none where the agent cannot do it."""

    def proxy_status(self) -> ProxyStatus:
        """What the proxy does."""

    def public(self) -> AbstractContextManager[Connection]:
        """Where clients reach the target."""

    def logs(self, unit: str, tail: int, follow: bool) -> Iterator[str]:
        """Lines of the log of a slot or of ``proxy``, oldest first."""

    def remove(self) -> None:
        """Stop everything and delete the target's state."""

    def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class Bounded(Protocol):
    """A host on a machine of which it knows how much it can do."""

    def require_room(self, bundle: Bundle, *, slots: int) -> None:
        """Refuse a release that has no room there, before anything changes.

        Raises:
            CheckFailed: it does not fit, or nothing that serves it runs there; with the ways that do.
        """

    def facts(self) -> Mapping[str, Any]:
        """What the machine is like now: what is measured on it means nothing without."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A release on its way to a target: its digest, the folder here (None where only the target has it), and its
    files by path with sha256 and size."""

    release: str
    folder: Path | None
    files: Mapping[str, Mapping[str, Any]]
    folders: Sequence[str]
    arguments: tuple[str, ...]
    stateful: bool
    """Whether a model keeps something between the requests of a sequence."""
    document: Mapping[str, Any]
