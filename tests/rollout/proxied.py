"""A real HAProxy before two small servers, blue and green, and ways to ask through it."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import pytest

from tritonforge.repository.template import render
from tritonforge.triton.ports import Ports, choose

PROGRAM = Path(__file__).with_name("proxied_slot.py")
INFER = "/v2/models/m/infer"
BACKENDS = ("triton_http", "triton_grpc")
RPC = "/inference.GRPCInferenceService/"


def haproxy() -> str:
    """The program; the test is skipped where there is none."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("there is no haproxy on this machine")
    return found


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


@dataclass(slots=True)
class Slot:
    """One server, which can be killed and started again on its ports."""

    name: str
    ports: Ports = field(default_factory=lambda: choose("127.0.0.1", None, None, None))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self.launch()
        eventually(self.answers, 20)
        return self

    def launch(self) -> None:
        ports = [str(port) for port in (self.ports.http, self.ports.grpc, self.ports.metrics)]
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), self.name, *ports])

    def answers(self) -> bool:
        try:
            return ask(self.ports.http, "GET", "/v2/health/ready")[0] in (200, 503)
        except OSError:
            return False

    def ready(self, is_ready: bool) -> None:
        ask(self.ports.http, "POST", "/test/ready", b"1" if is_ready else b"0")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def two_slots() -> Iterator[tuple[Slot, Slot]]:
    """Blue and green, started together and ended when the caller is through."""
    both = Slot("blue"), Slot("green")
    for slot in both:
        slot.launch()
    try:
        eventually(lambda: all(slot.answers() for slot in both), 20)
        yield both
    finally:
        for slot in both:
            slot.kill()


@dataclass(slots=True)
class Proxy:
    """HAProxy with the house's configuration; ``weights`` are those of its file."""

    folder: Path
    slots: tuple[Slot, ...]
    weights: tuple[int, ...] = (100, 0)
    settings: Mapping[str, Any] = field(default_factory=dict)
    ports: Ports = field(default_factory=lambda: choose("127.0.0.1", None, None, None))
    stats_port: int = field(default_factory=lambda: choose("127.0.0.1", None, None, None).http)
    process: subprocess.Popen[bytes] | None = None

    @property
    def control(self) -> Path:
        return self.folder / "proxy.sock"

    def configuration(self) -> str:
        slots = [
            {
                "name": slot.name,
                "host": "127.0.0.1",
                "http": slot.ports.http,
                "grpc": slot.ports.grpc,
                "metrics": slot.ports.metrics,
                "weight": weight,
            }
            for slot, weight in zip(self.slots, self.weights, strict=True)
        ]
        variables = {
            "http": f"127.0.0.1:{self.ports.http}",
            "grpc": f"127.0.0.1:{self.ports.grpc}",
            "metrics": f"127.0.0.1:{self.ports.metrics}",
            "stats_port": self.stats_port,
            "control": [f"unix@{self.control} mode 600 level admin"],
            "slots": slots,
        }
        return render("haproxy", "haproxy", {**variables, **self.settings}).text

    def start(self) -> Self:
        file = self.folder / "haproxy.cfg"
        file.write_text(self.configuration())
        self.process = subprocess.Popen([haproxy(), "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
        eventually(lambda: self.process is None or self.process.poll() is not None or self.control_answers())
        assert self.process.poll() is None, "haproxy ended at once"
        return self

    def control_answers(self) -> bool:
        try:
            return "Uptime" in self.say("show info")
        except OSError:
            return False

    def settled(self, *up: str) -> Self:
        """Wait until these servers have passed a check and the others are down, in both backends."""
        expected = {(backend, slot.name): slot.name in up for backend in BACKENDS for slot in self.slots}
        eventually(lambda: self.checked() == expected)
        return self

    def checked(self) -> dict[tuple[str, str], bool | None]:
        """Of each server whether it is up (its last check was good) or down; ``None`` between the two."""
        return {
            (row["pxname"], row["svname"]): False if row["status"] == "DOWN" else row["check_status"] == "L7OK" or None
            for row in self.stat()
            if row["pxname"] in BACKENDS and row["svname"] in ("blue", "green")
        }

    def stat(self) -> list[dict[str, str]]:
        lines = self.say("show stat").lstrip("# ").splitlines()
        names = lines[0].split(",")
        return [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]

    def say(self, command: str) -> str:
        """One command to the runtime socket, and its answer."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(5)
            channel.connect(str(self.control))
            channel.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: channel.recv(65536), b"")).decode()

    def weigh(self, **weights: int) -> None:
        for name, weight in weights.items():
            for backend in BACKENDS:
                assert self.say(f"set server {backend}/{name} weight {weight}").strip() == ""

    def stop(self, sign: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait(20)

    def infer(self, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> tuple[int, dict[str, Any]]:
        return ask(self.ports.http, "POST", INFER, body, headers)

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.ports.grpc}", options=[("grpc.use_local_subchannel_pool", 1)])


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own: its status, and its JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
        content = json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
        return answer.status, {**content, "answered": dict(answer.getheaders())}
    finally:
        connection.close()


def call(
    channel: grpc.Channel, headers: Mapping[str, str] | None = None, method: str = "ModelInfer", body: bytes = b"x"
) -> dict[str, Any]:
    """One unary call; what the server said."""
    ways = channel.unary_unary(RPC + method)
    answer: dict[str, Any] = json.loads(ways(body, metadata=tuple((headers or {}).items()), timeout=10))
    return answer


class Load:
    """Requests over both protocols, one after another on two connections each, while the block runs."""

    def __init__(self, proxy: Proxy, body: bytes = b"x" * 4096) -> None:
        self.proxy, self.body = proxy, body
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.longest = 0.0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._http, self._grpc) * 2]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def reached(self, count: int) -> None:
        """Wait for this many answers more."""
        goal = self.answered.total() + count
        eventually(lambda: self.answered.total() >= goal or bool(self.failed), 30)

    def _http(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.ports.http, timeout=10)

        def once() -> str:
            try:
                connection.request("POST", INFER, self.body)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                raise
            if answer.status != 200:
                raise OSError(f"{answer.status} {text[:100]!r}")
            return str(json.loads(text)["name"])

        self._repeat("http", once)
        connection.close()

    def _grpc(self) -> None:
        with self.proxy.channel() as channel:
            self._repeat("grpc", lambda: str(call(channel, body=self.body)["name"]))

    def _repeat(self, protocol: str, once: Callable[[], str]) -> None:
        while not self._over.is_set():
            started = time.monotonic()
            try:
                self.answered[f"{protocol} {once()}"] += 1
            except (OSError, http.client.HTTPException, grpc.RpcError) as error:
                self.failed.append(f"{protocol}: {error!r}")
            self.longest = max(self.longest, time.monotonic() - started)
