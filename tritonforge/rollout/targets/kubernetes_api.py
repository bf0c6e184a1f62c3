"""A Kubernetes cluster by its API, in plain JSON: the package ``kubernetes`` finds the way in and the credentials."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from tritonforge.errors import EnvironmentLacks, ForgeError

_READ: Final = 30.0


@dataclass(frozen=True, slots=True)
class Access:
    """How a cluster is reached: a namespace of it, a context of a kubeconfig (its current one when None)."""

    namespace: str = "default"
    context: str | None = None
    kubeconfig: Path | None = None


class Refusal(EnvironmentLacks):
    """The API server did not do it; ``status`` is the HTTP status, ``reason`` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str, what: str) -> None:
        hint = None
        if status in (401, 403):
            hint = "`kubectl auth can-i --list` shows what the credentials allow; ask for what is missing"
        super().__init__(f"the cluster refuses: {what}", found=message or reason, hint=hint)
        self.status = status
        self.reason = reason


class Cluster:
    """One namespace of a cluster.

    Raises:
        EnvironmentLacks: the package is not installed, there is no configuration, or the cluster does not answer.
    """

    def __init__(self, access: Access) -> None:
        try:
            from kubernetes import config as configuring
            from kubernetes.config.config_exception import ConfigException
        except ImportError:
            raise EnvironmentLacks(
                "targets of kind 'helm' need the package kubernetes", hint="pip install 'tritonforge[kubernetes]'"
            ) from None
        self.access = access
        config: Any = configuring
        try:
            file = None if access.kubeconfig is None else str(access.kubeconfig)
            self._client = config.new_client_from_config(config_file=file, context=access.context)
        except (ConfigException, OSError, ValueError) as error:
            self._client = self._inside(config, ConfigException, error)
        self._configuration = self._client.configuration
        self._lock = threading.Lock()

    def _inside(self, config: Any, refused: type[Exception], why: Exception) -> Any:
        """The client of a pod's own account, where no kubeconfig was asked for."""
        from kubernetes import client

        if self.access.kubeconfig is None and self.access.context is None:
            try:
                settings = client.Configuration()
                config.load_incluster_config(client_configuration=settings)
                return client.ApiClient(settings)
            except refused:
                pass
        raise EnvironmentLacks(
            "there is no way to the cluster",
            found=str(why),
            hint="name its `kubeconfig` and `context` in the target, or set KUBECONFIG",
        ) from None

    @property
    def title(self) -> str:
        """The API server and the namespace."""
        return f"{self._configuration.host}, namespace {self.access.namespace}"

    def path(self, kind: str, name: str | None = None, group: str = "v1", part: str | None = None) -> str:
        """The URL path of one object of the namespace, or of all: ``group`` is ``v1`` or ``apps/v1``."""
        root = "api" if "/" not in group else "apis"
        parts = [root, group, "namespaces", self.access.namespace, kind, *([name] if name else [])]
        return "/" + "/".join([quote(item, safe="/") for item in [*parts, *([part] if part else [])]])

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """One object, or None."""
        try:
            answer: dict[str, Any] = json.loads(self._request("GET", path, query).data)
        except Refusal as refusal:
            if refusal.status == 404:
                return None
            raise
        return answer

    def items(self, path: str, labels: Mapping[str, str] | None = None, fields: str | None = None) -> list[Any]:
        """All objects that have the labels."""
        query: dict[str, str] = {}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        if fields:
            query["fieldSelector"] = fields
        found: list[Any] = json.loads(self._request("GET", path, query).data)["items"]
        return found

    def delete(self, path: str, grace: int | None = None) -> None:
        """Delete one object; one that is not there is deleted."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            self._request("DELETE", path, body=body)
        except Refusal as refusal:
            if refusal.status != 404:
                raise

    def apply(self, path: str, body: Mapping[str, Any]) -> None:
        """Have an object be as ``body`` says (server-side apply)."""
        query = {"fieldManager": "tritonforge", "force": "true"}
        self._request("PATCH", path, query, body, "application/apply-patch+yaml")

    def text(self, path: str, query: Mapping[str, Any]) -> str:
        """A plain answer, such as a log."""
        return str(self._request("GET", path, query).data.decode(errors="replace"))

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[str]:
        """The lines of an answer that does not end, as they come."""
        answer = self._request("GET", path, query, stream=True)
        rest = b""
        try:
            for part in answer.stream(4096):
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace")
        finally:
            answer.release_conn()

    def websocket(self, path: str, query: Sequence[tuple[str, str]]) -> Any:
        """A connection to a pod by ``exec`` or ``portforward``.

        Raises:
            EnvironmentLacks: the cluster or the pod cannot be reached.
        """
        from kubernetes.stream import ws_client
        from websocket import WebSocketBadStatusException, WebSocketException

        address = self._configuration.host.replace("http", "ws", 1).rstrip("/") + path + "?" + urlencode(query)
        headers = {key.lower(): value for key, value in self._authorization().items()}
        try:
            connect: Any = ws_client.create_websocket
            return connect(self._configuration, address, headers)
        except WebSocketBadStatusException as error:
            message = _message(getattr(error, "resp_body", None))
            raise Refusal(error.status_code, "", message or str(error), path.rpartition("/")[2]) from None
        except (WebSocketException, OSError) as error:
            raise self._lost(error) from None

    def _authorization(self) -> dict[str, str]:
        with self._lock:  # credentials may be fetched anew by a program
            token = self._configuration.get_api_key_with_prefix("BearerToken", "authorization")
        return {"Authorization": token} if token else {}

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        stream: bool = False,
    ) -> Any:
        import urllib3

        address = self._configuration.host.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json, */*", "Content-Type": content, **self._authorization()}
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                address,
                headers=headers,
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(connect=10.0, read=None if stream else _READ),
                retries=urllib3.Retry(2, backoff_factor=0.2, status=0, raise_on_status=False),
                preload_content=not stream,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._lost(error) from None
        if answer.status >= 300:
            said = _status(answer.data)
            what = f"{method} {path.rpartition('/namespaces/')[2]}"
            raise Refusal(answer.status, str(said.get("reason") or ""), str(said.get("message") or ""), what)
        return answer

    def _lost(self, error: Exception) -> ForgeError:
        found = str(error.args[0] if error.args else error)
        return EnvironmentLacks(
            "the cluster is not reached",
            found=f"{self._configuration.host}: {found[-300:]}",
            hint="`kubectl get nodes` shows whether it answers",
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _status(data: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")[:300]}
    return said if isinstance(said, dict) else {}


def _message(data: bytes | None) -> str:
    return str(_status(data).get("message") or "") if data else ""
