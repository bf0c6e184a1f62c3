"""What a client needs of a protocol; ``transport_http`` and ``transport_grpc`` provide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


class CallTimedOut(Exception):
    """The server gave no answer in time; what it did is not known."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; ``state`` is READY, LOADING, UNLOADING, UNAVAILABLE or empty."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference request: tensors by name, each with its protocol type."""

    model: str
    version: str
    inputs: Mapping[str, tuple[str, np.ndarray[Any, Any]]]
    outputs: Sequence[str] | None
    parameters: Mapping[str, str | int | bool]
    request_id: str
    sequence: tuple[int | str, bool, bool]
    """Correlation id (0: none), start, end."""


class Transport(Protocol):
    """One protocol's calls. Each may raise ``CallTimedOut``, ``CheckFailed`` (the server said no) or
    ``EnvironmentLacks`` (it cannot be reached)."""

    def live(self, timeout: float) -> bool: ...
    def ready(self, timeout: float) -> bool: ...
    def server_metadata(self, timeout: float) -> dict[str, Any]: ...
    def model_ready(self, name: str, version: str, timeout: float) -> bool: ...
    def index(self, timeout: float) -> list[IndexEntry]: ...
    def load(self, name: str, config: str | None, timeout: float) -> None: ...
    def unload(self, name: str, dependents: bool, timeout: float) -> None: ...
    def model_metadata(self, name: str, version: str, timeout: float) -> dict[str, Any]: ...
    def model_config(self, name: str, version: str, timeout: float) -> Any: ...
    def statistics(self, name: str, version: str, timeout: float) -> dict[str, Any]: ...
    def infer(self, request: Inference, timeout: float) -> dict[str, np.ndarray[Any, Any]]: ...
    def close(self) -> None: ...
