"""Triton over HTTP (KServe v2 with Triton's extensions), on ``httpx``.

``tritonclient`` encodes and decodes the tensors; its own HTTP client is not used, because its connections belong to
the thread that opened them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton.connection import Connection
from tritonforge.triton.tls import tls_context, tls_failure, unusable
from tritonforge.triton.transport import CallTimedOut, IndexEntry, Inference

if TYPE_CHECKING:
    import httpx
    import numpy as np


class HttpTransport:
    """Calls one server over HTTP; safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        import httpx

        self._connection = connection
        try:
            # Proxy variables are ignored on purpose, as Triton's own clients do.
            self._client = httpx.Client(
                base_url=connection.http_url,
                headers=dict(connection.headers),
                verify=_context(connection),
                trust_env=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            )
        except (OSError, ValueError) as error:
            raise unusable(error) from None

    def close(self) -> None:
        self._client.close()

    def live(self, timeout: float) -> bool:
        return self._flag("/v2/health/live", timeout)

    def ready(self, timeout: float) -> bool:
        return self._flag("/v2/health/ready", timeout)

    def model_ready(self, name: str, version: str, timeout: float) -> bool:
        return self._flag(f"{_model(name, version)}/ready", timeout)

    def server_metadata(self, timeout: float) -> dict[str, Any]:
        return dict(self._json("GET", "/v2", timeout))

    def model_metadata(self, name: str, version: str, timeout: float) -> dict[str, Any]:
        return dict(self._json("GET", _model(name, version), timeout))

    def statistics(self, name: str, version: str, timeout: float) -> dict[str, Any]:
        path = f"{_model(name, version)}/stats" if name else "/v2/models/stats"
        return dict(self._json("GET", path, timeout))

    def model_config(self, name: str, version: str, timeout: float) -> Any:
        from google.protobuf import json_format
        from tritonclient.grpc import model_config_pb2

        data = self._json("GET", f"{_model(name, version)}/config", timeout)
        return json_format.ParseDict(data, model_config_pb2.ModelConfig(), ignore_unknown_fields=True)

    def index(self, timeout: float) -> list[IndexEntry]:
        items = self._json("POST", "/v2/repository/index", timeout, {})
        return [
            IndexEntry(item["name"], item.get("version", ""), item.get("state", ""), item.get("reason", ""))
            for item in items
        ]

    def load(self, name: str, config: str | None, timeout: float) -> None:
        body = {} if config is None else {"parameters": {"config": config}}
        self._json("POST", f"/v2/repository/models/{quote(name, safe='')}/load", timeout, body)

    def unload(self, name: str, dependents: bool, timeout: float) -> None:
        body = {"parameters": {"unload_dependents": dependents}}
        self._json("POST", f"/v2/repository/models/{quote(name, safe='')}/unload", timeout, body)

    def infer(self, request: Inference, timeout: float) -> dict[str, np.ndarray[Any, Any]]:
        import tritonclient.http as triton

        inputs = []
        for name, (datatype, array) in request.inputs.items():
            tensor = triton.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = None if request.outputs is None else [triton.InferRequestedOutput(name) for name in request.outputs]
        number, start, end = request.sequence
        body, header_length = triton.InferenceServerClient.generate_request_body(
            inputs,
            outputs,
            request_id=request.request_id,
            sequence_id=number,
            sequence_start=start,
            sequence_end=end,
            parameters=dict(request.parameters) or None,
        )
        headers = {"Content-Type": "application/octet-stream"}
        if header_length is not None:
            headers["Inference-Header-Content-Length"] = str(header_length)
        response = self._send("POST", f"{_model(request.model, request.version)}/infer", timeout, body, headers)
        self._check(response)
        length = response.headers.get("Inference-Header-Content-Length")
        result = triton.InferenceServerClient.parse_response_body(
            response.content, header_length=None if length is None else int(length)
        )
        answer = result.get_response()
        return {item["name"]: result.as_numpy(item["name"]) for item in answer.get("outputs", [])}

    def _flag(self, path: str, timeout: float) -> bool:
        return self._send("GET", path, timeout).status_code == 200

    def _json(self, method: str, path: str, timeout: float, body: object = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        response = self._send(method, path, timeout, content, {"Content-Type": "application/json"})
        self._check(response)
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise EnvironmentLacks(
                f"{self._connection.http_url} does not answer as Triton does",
                found=self._connection.hide(response.text)[:200],
            ) from None

    def _send(
        self,
        method: str,
        path: str,
        timeout: float,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        import httpx

        try:
            return self._client.request(
                method, path, content=content, headers=headers, timeout=httpx.Timeout(timeout, pool=None)
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            refused = tls_failure(self._connection, self._connection.http_url, str(error))
            raise refused or EnvironmentLacks(
                f"no Triton server answers at {self._connection.http_url}",
                found=self._connection.hide(str(error)) or type(error).__name__,
                hint="check the address, and that the server is running",
            ) from None
        except httpx.TimeoutException:
            raise CallTimedOut(f"{self._connection.http_url} gave no answer within {timeout:g} s") from None
        except httpx.HTTPError as error:
            refused = tls_failure(self._connection, self._connection.http_url, str(error))
            raise refused or EnvironmentLacks(
                f"the connection to {self._connection.http_url} broke",
                found=self._connection.hide(str(error)) or type(error).__name__,
            ) from None

    def _check(self, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        try:
            message = str(response.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = response.text[:500].strip() or response.reason_phrase
        message = self._connection.hide(message)
        if response.status_code in (401, 403, 407):
            raise EnvironmentLacks(
                f"{self._connection.http_url} refuses these credentials (HTTP {response.status_code})",
                found=message,
                hint="check the connection's `token` and `headers`",
            )
        raise CheckFailed(message or f"HTTP {response.status_code} from {self._connection.http_url}")


def _model(name: str, version: str) -> str:
    path = f"/v2/models/{quote(name, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _context(connection: Connection) -> Any:
    return False if connection.tls is None else tls_context(connection.tls)
