"""Triton over gRPC, on ``tritonclient.grpc``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton.connection import Connection
from tritonforge.triton.tls import checked_tls, handshake_failure, unusable
from tritonforge.triton.transport import CallTimedOut, IndexEntry, Inference

if TYPE_CHECKING:
    import numpy as np


class GrpcTransport:
    """Calls one server over gRPC; safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        # Its log would stand between our errors; what it knows of them is in its answers.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import tritonclient.grpc as triton

        self._connection = connection
        # gRPC wants lower-case metadata keys.
        self._headers = {key.lower(): value for key, value in connection.headers.items()} or None
        tls = connection.tls
        if tls is not None:
            checked_tls(tls)
        key = None if tls is None else tls.key or tls.cert  # one file may have both
        try:
            self._client: Any = triton.InferenceServerClient(
                connection.grpc,
                ssl=tls is not None,
                root_certificates=None if tls is None or tls.ca is None else str(tls.ca),
                private_key=None if key is None else str(key),
                certificate_chain=None if tls is None or tls.cert is None else str(tls.cert),
                channel_args=[
                    ("grpc.max_send_message_length", -1),
                    ("grpc.max_receive_message_length", -1),
                    ("grpc.enable_http_proxy", 0),
                    # Channels to one address share a connection otherwise, and with it the back-off after a restart.
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.max_reconnect_backoff_ms", 1000),
                ],
            )
        except OSError as error:
            raise unusable(error) from None

    def close(self) -> None:
        self._client.close()

    def live(self, timeout: float) -> bool:
        with self._boundary(timeout):
            return bool(self._client.is_server_live(headers=self._headers, client_timeout=timeout))

    def ready(self, timeout: float) -> bool:
        with self._boundary(timeout):
            return bool(self._client.is_server_ready(headers=self._headers, client_timeout=timeout))

    def model_ready(self, name: str, version: str, timeout: float) -> bool:
        try:
            with self._boundary(timeout):
                return bool(self._client.is_model_ready(name, version, headers=self._headers, client_timeout=timeout))
        except CheckFailed:
            # Over gRPC an unknown model is an error; over HTTP it is simply not ready. Say the same on both.
            return False

    def server_metadata(self, timeout: float) -> dict[str, Any]:
        with self._boundary(timeout):
            return dict(self._client.get_server_metadata(headers=self._headers, as_json=True, client_timeout=timeout))

    def model_metadata(self, name: str, version: str, timeout: float) -> dict[str, Any]:
        with self._boundary(timeout):
            data = self._client.get_model_metadata(name, version, headers=self._headers, client_timeout=timeout)
            return {
                "name": data.name,
                "versions": list(data.versions),
                "platform": data.platform,
                "inputs": [_tensor(item) for item in data.inputs],
                "outputs": [_tensor(item) for item in data.outputs],
            }

    def model_config(self, name: str, version: str, timeout: float) -> Any:
        with self._boundary(timeout):
            return self._client.get_model_config(name, version, headers=self._headers, client_timeout=timeout).config

    def statistics(self, name: str, version: str, timeout: float) -> dict[str, Any]:
        from google.protobuf import json_format

        with self._boundary(timeout):
            data = self._client.get_inference_statistics(name, version, headers=self._headers, client_timeout=timeout)
        # Over HTTP counters are numbers and zeros are present; protobuf's JSON writes 64-bit integers as text.
        plain = json_format.MessageToDict(
            data, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return dict(_numbers(plain))

    def index(self, timeout: float) -> list[IndexEntry]:
        with self._boundary(timeout):
            data = self._client.get_model_repository_index(headers=self._headers, client_timeout=timeout)
            return [IndexEntry(item.name, item.version, item.state, item.reason) for item in data.models]

    def load(self, name: str, config: str | None, timeout: float) -> None:
        with self._boundary(timeout):
            self._client.load_model(name, headers=self._headers, config=config, client_timeout=timeout)

    def unload(self, name: str, dependents: bool, timeout: float) -> None:
        with self._boundary(timeout):
            self._client.unload_model(name, headers=self._headers, unload_dependents=dependents, client_timeout=timeout)

    def infer(self, request: Inference, timeout: float) -> dict[str, np.ndarray[Any, Any]]:
        import tritonclient.grpc as triton

        inputs = []
        for name, (datatype, array) in request.inputs.items():
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = None if request.outputs is None else [triton.InferRequestedOutput(name) for name in request.outputs]
        number, start, end = request.sequence
        with self._boundary(timeout):
            result = self._client.infer(
                request.model,
                inputs,
                model_version=request.version,
                outputs=outputs,
                request_id=request.request_id,
                sequence_id=number,
                sequence_start=start,
                sequence_end=end,
                headers=self._headers,
                client_timeout=timeout,
                parameters=dict(request.parameters) or None,
            )
            return {item.name: result.as_numpy(item.name) for item in result.get_response().outputs}

    @contextlib.contextmanager
    def _boundary(self, timeout: float) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            raise self._translate(error, timeout) from None

    def _translate(self, error: Any, timeout: float) -> Exception:
        status, message = str(error.status() or ""), self._connection.hide(str(error.message()))
        url = self._connection.grpc_url
        if status.endswith("DEADLINE_EXCEEDED"):
            return CallTimedOut(f"{url} gave no answer within {timeout:g} s")
        if status.endswith(("UNAUTHENTICATED", "PERMISSION_DENIED")):
            return EnvironmentLacks(
                f"{url} refuses these credentials", found=message, hint="check the connection's `token` and `headers`"
            )
        # Triton answers UNAVAILABLE too, for a model with no ready version: ask the server itself to tell them apart.
        if status.endswith("UNAVAILABLE") and not self._answers():
            return self._refused(url) or EnvironmentLacks(
                f"no Triton server answers at {url}",
                found=message,
                hint="check the address, and that the server is running",
            )
        return CheckFailed(message)

    def _refused(self, url: str) -> EnvironmentLacks | None:
        """Why TLS fails, where it does."""
        if self._connection.tls is None or self._connection.grpc is None:
            return None
        return handshake_failure(self._connection, self._connection.grpc, url)

    def _answers(self) -> bool:
        from tritonclient.utils import InferenceServerException

        try:
            return bool(self._client.is_server_live(headers=self._headers, client_timeout=2.0))
        except InferenceServerException:
            return False


def _tensor(item: Any) -> dict[str, Any]:
    return {"name": item.name, "datatype": item.datatype, "shape": list(item.shape)}


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key in ("name", "version") else _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value
