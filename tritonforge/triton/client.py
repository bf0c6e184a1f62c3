"""Talk to one Triton server: health, repository, metadata, inference."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.triton.connection import Connection
from tritonforge.triton.tensors import wire_array, wire_type
from tritonforge.triton.transport import CallTimedOut, IndexEntry, Inference, Transport

if TYPE_CHECKING:
    import numpy as np
    from tritonclient.grpc.model_config_pb2 import ModelConfig

_T = TypeVar("_T")
Protocol = Literal["http", "grpc"]
_QUICK: Final = 10.0
_PATIENT: Final = 60.0
"""Seconds for questions about one model, which a server that is loading others may answer late."""
_NOTHING: Final[Mapping[str, Any]] = {}


class Client:
    """One server. Safe to use from several threads; close it, or use it as a context manager.

    Every error is a :class:`~tritonforge.errors.ForgeError`: ``EnvironmentLacks`` when the server cannot be reached
    (the message holds the URL), ``CheckFailed`` with the server's own words when it refuses.
    ``explain`` may turn a model's name into what the server's log says about it: over HTTP a model that cannot be
    polled is reported only as "failed to poll from model repository".
    """

    def __init__(self, connection: Connection, *, explain: Callable[[str], str | None] | None = None) -> None:
        self.connection = connection
        self._explain = explain
        self._transports: dict[str, Transport] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the client opens them again when used again."""
        for transport in self._transports.values():
            transport.close()
        self._transports.clear()

    def live(self, *, timeout: float = _QUICK) -> bool:
        """Whether the server's process answers; False too when it cannot be reached."""
        try:
            return self._transport().live(timeout)
        except (EnvironmentLacks, CallTimedOut):
            return False

    def ready(self, *, timeout: float = _QUICK) -> bool:
        """Whether the server says that it is ready; False too when it cannot be reached."""
        try:
            return self._transport().ready(timeout)
        except (EnvironmentLacks, CallTimedOut):
            return False

    def server_metadata(self, *, protocol: Protocol | None = None, timeout: float = _QUICK) -> dict[str, Any]:
        """``name``, ``version`` and ``extensions`` of the server."""
        return self._call(lambda transport: transport.server_metadata(timeout), protocol)

    def model_ready(self, name: str, version: str = "", *, timeout: float = _QUICK) -> bool:
        """Whether that version (or any, when none is named) is ready for inference."""
        return self._call(lambda transport: transport.model_ready(name, version, timeout))

    def index(self, *, timeout: float = _QUICK) -> list[IndexEntry]:
        """Every model and version that the server knows, with its state and the reason for it."""
        return self._call(lambda transport: transport.index(timeout))

    def model_metadata(self, name: str, version: str = "", *, timeout: float = _PATIENT) -> dict[str, Any]:
        """``versions``, ``platform``, ``inputs`` and ``outputs`` as the server states them."""
        return self._call(lambda transport: transport.model_metadata(name, version, timeout))

    def model_config(
        self, name: str, version: str = "", *, protocol: Protocol | None = None, timeout: float = _PATIENT
    ) -> ModelConfig:
        """The configuration in force: completed by the backend, overridden by the last load.

        Over gRPC it comes as the message that it is, several times faster than from JSON.
        """
        config: ModelConfig = self._call(lambda transport: transport.model_config(name, version, timeout), protocol)
        return config

    def statistics(self, name: str = "", version: str = "", *, timeout: float = _QUICK) -> dict[str, Any]:
        """``model_stats`` of one model, or of all."""
        return self._call(lambda transport: transport.statistics(name, version, timeout))

    def load(self, name: str, config: Mapping[str, Any] | None = None, *, timeout: float = 300.0) -> list[IndexEntry]:
        """Load or reload a model (explicit mode only) and return its lines of the index.

        ``config`` overrides the published ``config.pbtxt``; it **sticks** through later plain loads until the server
        restarts. The index decides, never the status code: Triton answers 200 to loads that changed nothing, and a
        call that times out goes on in the server, so the index is polled until nothing of the model is in motion.

        Raises:
            CheckFailed: no version is ready, one failed, or ``timeout`` passed; the server's reasons are in it.
        """
        text = None if config is None else json.dumps(dict(config))
        deadline = time.monotonic() + timeout
        refusal: CheckFailed | None = None
        try:
            self._transport().load(name, text, timeout)
        except CallTimedOut:
            # Unknown, not failed. The little that is added is for the index calls below.
            deadline = time.monotonic() + 5.0
        except CheckFailed as error:
            refusal = error
        entries = self._settled(name, deadline)
        moving = [entry for entry in entries if entry.state in ("LOADING", "UNLOADING")]
        failed = [entry for entry in entries if entry.state == "UNAVAILABLE" and entry.reason not in ("", "unloaded")]
        if refusal is None and not moving and not failed and any(entry.state == "READY" for entry in entries):
            return entries
        if moving:
            raise CheckFailed(f"model '{name}' was still loading after {timeout:g} s", details=_lines(entries))
        raise CheckFailed(
            f"model '{name}' did not load: {self._reason(name, refusal, failed)}", details=_lines(entries)
        )

    def unload(self, name: str, *, dependents: bool = False, timeout: float = 120.0) -> list[IndexEntry]:
        """Unload all versions of a model (explicit mode only) and return its lines of the index.

        Requests in flight end first; ``dependents`` unloads an ensemble's members with it.

        Raises:
            CheckFailed: the server refuses, or something is still loaded after ``timeout``.
        """
        deadline = time.monotonic() + timeout
        try:
            self._transport().unload(name, dependents, timeout)
        except CallTimedOut:
            deadline = time.monotonic() + 5.0
        entries = self._settled(name, deadline, gone=True)
        if any(entry.state in ("READY", "LOADING", "UNLOADING") for entry in entries):
            raise CheckFailed(f"model '{name}' was still loaded after {timeout:g} s", details=_lines(entries))
        return entries

    def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        *,
        protocol: Protocol | None = None,
        version: str = "",
        outputs: Sequence[str] | None = None,
        datatypes: Mapping[str, str] = _NOTHING,
        parameters: Mapping[str, str | int | bool] = _NOTHING,
        request_id: str = "",
        sequence_id: int | str = 0,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: float = 60.0,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Run one inference and return the outputs by name.

        Arrays of text, bytes or objects are sent as ``BYTES``; ``BYTES`` outputs are object arrays of bytes. ``BF16``
        inputs are float32 (with ``datatypes={name: "BF16"}``) or ``ml_dtypes.bfloat16`` arrays; its outputs are
        float32.

        Raises:
            CheckFailed: the server refuses or the model fails, in the server's words; or ``timeout`` passed.
            UsageError: an array does not fit its datatype, or the address for ``protocol`` is not known.
        """
        tensors = {}
        for name, array in inputs.items():
            datatype = wire_type(name, array, datatypes.get(name))
            tensors[name] = (datatype, wire_array(name, array, datatype))
        request = Inference(
            model, version, tensors, outputs, parameters, request_id, (sequence_id, sequence_start, sequence_end)
        )
        return self._call(lambda transport: transport.infer(request, timeout), protocol)

    def _transport(self, protocol: Protocol | None = None) -> Transport:
        chosen = protocol or ("http" if self.connection.http is not None else "grpc")
        found = self._transports.get(chosen)
        if found is not None:
            return found
        if chosen == "http" and self.connection.http is not None:
            from tritonforge.triton.transport_http import HttpTransport

            found = HttpTransport(self.connection)
        elif chosen == "grpc" and self.connection.grpc is not None:
            from tritonforge.triton.transport_grpc import GrpcTransport

            found = GrpcTransport(self.connection)
        else:
            raise UsageError(f"the {chosen} address of the server at {self.connection.url} is not known")
        return self._transports.setdefault(chosen, found)

    def _call(self, call: Callable[[Transport], _T], protocol: Protocol | None = None) -> _T:
        try:
            return call(self._transport(protocol))
        except CallTimedOut as error:
            raise CheckFailed(str(error)) from None

    def _settled(self, name: str, deadline: float, *, gone: bool = False) -> list[IndexEntry]:
        moving = ("LOADING", "UNLOADING", "READY") if gone else ("LOADING", "UNLOADING")
        pause = 0.02
        while True:
            entries = [entry for entry in self.index() if entry.name == name]
            if not any(entry.state in moving for entry in entries) or time.monotonic() >= deadline:
                return entries
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _reason(self, name: str, refusal: CheckFailed | None, failed: list[IndexEntry]) -> str:
        logged = None if self._explain is None else self._explain(name)
        if len(failed) > 1 or (failed and logged is None):
            return "; ".join(f"version {entry.version}: {entry.reason}" for entry in failed)
        if logged is not None:
            return logged
        return "no version of it is ready" if refusal is None else refusal.message


def _lines(entries: list[IndexEntry]) -> list[str]:
    if len(entries) < 2:
        return []  # the message says it all
    return [f"version {item.version or '?'}: {item.state or 'unknown'} {item.reason}".rstrip() for item in entries]
