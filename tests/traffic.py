"""Clients that never stop asking, over HTTP and gRPC, and count every request that failed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np


@dataclass
class Traffic:
    """Asks ``model`` at ``http`` and ``grpc`` (``HOST:PORT``) until it is stopped; a context manager.

    ``inputs`` are arrays by name (FP32 or BYTES); ``check`` gets the outputs by name of each answer and may raise.
    ``threads`` clients a protocol. ``pause`` is the time in seconds between two requests of one client.
    """

    http: str | None
    grpc: str | None
    model: str
    inputs: dict[str, np.ndarray[Any, Any]]
    check: Callable[[dict[str, Any]], object] = lambda outputs: None
    threads: int = 1
    pause: float = 0.002
    timeout: float = 20.0
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When each request began (monotonic) and how long it took, in seconds."""

    def __enter__(self) -> Traffic:
        self._stop = threading.Event()
        self._workers = []
        for _ in range(self.threads):
            if self.http is not None:
                self._workers.append(threading.Thread(target=self._run, args=("http", self._http), daemon=True))
            if self.grpc is not None:
                self._workers.append(threading.Thread(target=self._run, args=("grpc", self._grpc), daemon=True))
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join(self.timeout + 10)

    @property
    def total(self) -> int:
        """Requests that were answered rightly."""
        return sum(self.done.values())

    def wait_for(self, requests: int, seconds: float = 120.0) -> None:
        """Wait until so many more requests were answered."""
        wanted, ends = self.total + requests, time.monotonic() + seconds
        while self.total < wanted:
            assert time.monotonic() < ends, f"only {self.total} of {wanted} requests; {self.failures[:3]}"
            time.sleep(0.02)

    def _run(self, name: str, loop: Callable[[], Callable[[], dict[str, Any]]]) -> None:
        ask = loop()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.check(ask())
                self.done[name] += 1
            except Exception as error:
                self.failures.append(f"{name} after {time.monotonic() - began:.2f} s: {type(error).__name__}: {error}")
                ask = loop()
            took = time.monotonic() - began
            self.latencies.append((began, took))
            self.slowest = max(self.slowest, took)
            time.sleep(self.pause)

    def _http(self) -> Callable[[], dict[str, Any]]:
        assert self.http is not None
        host, _, port = self.http.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=self.timeout)
        body = json.dumps(
            {
                "inputs": [
                    {
                        "name": name,
                        "datatype": _datatype(array),
                        "shape": list(array.shape),
                        "data": [
                            item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()
                        ],
                    }
                    for name, array in self.inputs.items()
                ]
            }
        ).encode()

        def ask() -> dict[str, Any]:
            connection.request("POST", f"/v2/models/{self.model}/infer", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {said[:200]!r}")
            return {item["name"]: np.array(item["data"]).reshape(item["shape"]) for item in json.loads(said)["outputs"]}

        return ask

    def _grpc(self) -> Callable[[], dict[str, Any]]:
        import tritonclient.grpc as triton

        assert self.grpc is not None
        client = triton.InferenceServerClient(self.grpc)
        tensors = []
        for name, array in self.inputs.items():
            tensor = triton.InferInput(name, list(array.shape), _datatype(array))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)

        def ask() -> dict[str, Any]:
            answer = client.infer(self.model, tensors, client_timeout=self.timeout)
            return {item.name: answer.as_numpy(item.name) for item in answer.get_response().outputs}

        return ask


def _datatype(array: np.ndarray[Any, Any]) -> str:
    return "BYTES" if array.dtype.kind in "OSU" else {"f": "FP32", "i": "INT64"}[array.dtype.kind]
