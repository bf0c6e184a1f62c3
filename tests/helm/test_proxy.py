"""The chart's haproxy.cfg in a real HAProxy, before little servers that stand in for Triton."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helm.chart import merged, render
from helm.combinations import BOTH, COMBINATIONS, PROXY


@pytest.fixture
def haproxy() -> str:
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("there is no `haproxy` on the path")
    return found


ADDRESSES = {f"SHOP_TRITONFORGE_{slot}_SERVICE_HOST": "127.0.0.1" for slot in ("BLUE", "GREEN")}


@pytest.mark.parametrize("name", [name for name, values in COMBINATIONS.items() if "proxy" in values])
def test_haproxy_takes_every_configuration_without_a_warning(
    helm: str, haproxy: str, name: str, tmp_path: Path
) -> None:
    config = render(COMBINATIONS[name]).haproxy()
    if "ssl crt" in config:
        words = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=x",
            "-keyout",
            "tls.key",
            "-out",
            "tls.crt",
        ]
        if shutil.which("openssl") is None:
            pytest.skip("there is no `openssl` on the path")
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
        shutil.copy(tmp_path / "tls.crt", tmp_path / "ca.crt")
        (tmp_path / "tokens").write_text("0" * 64 + "\n")
        config = re.sub(r"/etc/haproxy/(tls|clients|tokens)/", f"{tmp_path}/", config)
    file = tmp_path / "haproxy.cfg"
    file.write_text(config)
    done = subprocess.run(
        [haproxy, "-c", "-f", str(file)], capture_output=True, text=True, env={**os.environ, **ADDRESSES}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


class Slot(ThreadingHTTPServer):
    """Answers with its name; may be told to be unready."""

    daemon_threads = True

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.ready = True
        self.asked: list[str] = []
        super().__init__((host, port), SlotAnswer)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        pass  # checks close their connections early

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class SlotAnswer(BaseHTTPRequestHandler):
    server: Slot
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.path.startswith("/v2/health"):
            self.server.asked.append(self.path)
        self.send_response(200 if self.server.ready else 503)
        self.send_header("Content-Length", str(len(self.server.name)))
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Proxy:
    """A running HAProxy."""

    http: int
    control: int

    def ask(self, path: str = "/v2/models/m/infer", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        try:
            connection.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def tell(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self.control), timeout=5) as stream:
            stream.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: stream.recv(65536), b"")).decode()

    def states(self) -> dict[str, str]:
        lines = self.tell("show stat").splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "triton_http"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], object], seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, f"not within {seconds:g} s"
        time.sleep(0.02)


Start = Callable[[dict[str, Any], Callable[[str], str]], Proxy]


@pytest.fixture
def start(helm: str, haproxy: str, tmp_path: Path) -> Iterator[Start]:
    """Starts HAProxy with the chart's configuration, its ports moved to free ones."""
    running: list[subprocess.Popen[bytes]] = []

    def run(values: dict[str, Any], change: Callable[[str], str]) -> Proxy:
        proxy = Proxy(free_port(), free_port())
        config = change(render(merged(BOTH, PROXY, values)).haproxy())
        ports = {"bind :8000": proxy.http, "bind :8001": free_port(), "bind :8405": free_port()}
        for bind, port in ports.items():
            config = config.replace(bind, f"bind 127.0.0.1:{port}")
        config = config.replace("127.0.0.1:8404", f"127.0.0.1:{free_port()}")
        config = config.replace("ipv4@*:9999", f"ipv4@127.0.0.1:{proxy.control}")
        (tmp_path / "haproxy.cfg").write_text(config)
        words = [haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")]
        running.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def answers() -> bool:
            assert running[-1].poll() is None, "HAProxy ended"
            try:
                return bool(proxy.states())
            except OSError:
                return False

        eventually(answers)
        return proxy

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def slots() -> Iterator[dict[str, Slot]]:
    found = {name: Slot(name) for name in ("blue", "green")}
    yield found
    for slot in found.values():
        slot.end()


def beside(slots: dict[str, Slot]) -> Callable[[str], str]:
    """The configuration with the slots' addresses in the place of Kubernetes'."""

    def change(config: str) -> str:
        for name, slot in slots.items():
            variable = f'"${{SHOP_TRITONFORGE_{name.upper()}_SERVICE_HOST}}"'
            config = re.sub(rf"{re.escape(variable)}:800[01]", f"127.0.0.1:{slot.port}", config)
        return config

    return change


def test_weights_split_requests_and_move_at_run_time(start: Start, slots: dict[str, Slot]) -> None:
    proxy = start({"traffic": {"blue": 75, "green": 25}}, beside(slots))
    # By chance (`balance random`): 400 requests stay within five standard deviations, 0.11, of three quarters.
    answered = Counter(proxy.ask()[1] for _ in range(400))
    assert set(answered) == {"blue", "green"}
    assert abs(answered["blue"] / 400 - 0.75) < 0.11
    proxy.tell("set server triton_http/blue weight 0")
    assert {proxy.ask()[1] for _ in range(20)} == {"green"}


def test_a_slot_without_weight_serves_only_when_no_other_can(start: Start, slots: dict[str, Slot]) -> None:
    proxy = start({}, beside(slots))
    assert {proxy.ask()[1] for _ in range(20)} == {"blue"}
    slots["blue"].ready = False
    eventually(lambda: proxy.states()["blue"] == "DOWN")
    assert {proxy.ask() for _ in range(20)} == {(200, "green")}
    # A candidate that must not serve is kept out.
    proxy.tell("set server triton_http/spare-green state maint")
    assert proxy.ask()[0] == 503
    slots["blue"].ready = True
    eventually(lambda: proxy.states()["blue"] == "UP")
    assert {proxy.ask() for _ in range(20)} == {(200, "blue")}


def test_a_server_that_goes_away_costs_no_request(start: Start, slots: dict[str, Slot]) -> None:
    proxy = start({"traffic": {"blue": 50, "green": 50}}, beside(slots))
    assert len({proxy.ask()[1] for _ in range(40)}) == 2
    slots["blue"].end()
    assert {proxy.ask() for _ in range(20)} == {(200, "green")}


def test_a_sequence_stays_where_it_began(start: Start, slots: dict[str, Slot]) -> None:
    header = {"proxy": {"sequenceHeader": "X-Sequence", "replicas": 1}, "traffic": {"blue": 50, "green": 50}}
    proxy = start(header, beside(slots))
    began = {number: proxy.ask(X_Sequence=str(number))[1] for number in range(40)}
    assert set(began.values()) == {"blue", "green"}
    proxy.tell("set server triton_http/blue weight 0")
    assert {number: proxy.ask(X_Sequence=str(number))[1] for number in range(40)} == began
    assert {proxy.ask(X_Sequence=str(number))[1] for number in range(50, 70)} == {"green"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2", 200),
        ("/v2/health/ready", 200),
        ("/v2/models/m/infer", 200),
        ("/v2/models/repository/infer", 200),
        ("/v2/models/m/versions/1/stats", 200),
        ("/v2/repository/index", 403),
        ("/v2/repository/models/m/load", 403),
        ("/v2/models/../repository/models/m/unload", 403),
        ("/v2/models/%2e%2e/repository/models/m/unload", 403),
        ("/v2/systemsharedmemory/region/x/register", 403),
        ("/v2/trace/setting", 403),
        ("/v2/models/m/trace/setting", 403),
        ("/v2/logging", 403),
        ("/metrics", 403),
    ],
)
def test_only_what_clients_need_is_offered(start: Start, slots: dict[str, Slot], path: str, status: int) -> None:
    assert start({}, beside(slots)).ask(path)[0] == status
    assert slots["blue"].asked == ([path] if status == 200 and "health" not in path else [])


class Names:
    """A name server: the addresses of each headless Service."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                question, sender = self.socket.recvfrom(4096)
            except OSError:
                return
            labels, at = [], 12
            while question[at]:
                labels.append(question[at + 1 : at + 1 + question[at]].decode())
                at += question[at] + 1
            kind = struct.unpack(">H", question[at + 1 : at + 3])[0]
            found = self.known.get(".".join(labels), []) if kind == 1 else []
            head = question[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
            records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(ip) for ip in found)
            self.socket.sendto(head + question[12 : at + 5] + records, sender)


def test_pods_are_found_by_name_and_leave_without_a_failed_request(start: Start) -> None:
    first = Slot("one", "127.0.0.2")
    second = Slot("two", "127.0.0.3", first.port)
    names = Names()
    service = "shop-tritonforge-blue-headless.shop.svc.cluster.local"
    names.known[service] = ["127.0.0.2", "127.0.0.3"]

    def change(config: str) -> str:
        config = config.replace("parse-resolv-conf", f"nameserver here 127.0.0.1:{names.port}")
        config = re.sub(r"local:800[01] ", f"local:{first.port} ", config)
        return config.replace("check port 8000", f"check port {first.port}")

    try:
        proxy = start({"proxy": {"discovery": "dns", "maxPods": 4}}, change)
        eventually(lambda: sum(state == "UP" for name, state in proxy.states().items() if name[:4] == "blue") == 2)
        assert {proxy.ask()[1] for _ in range(20)} == {"one", "two"}
        names.known[service] = ["127.0.0.3"]
        ends = time.monotonic() + 15
        seen: list[tuple[int, str]] = []
        while {answer for _, answer in seen[-20:]} != {"two"} or len(seen) < 20:
            seen.append(proxy.ask())
            assert time.monotonic() < ends, "the pod that left still gets requests"
        first.end()
        seen += [proxy.ask() for _ in range(20)]
        assert {status for status, _ in seen} == {200}
        names.known[service] = ["127.0.0.3", "127.0.0.4"]
        third = Slot("three", "127.0.0.4", first.port)
        eventually(lambda: "three" in {proxy.ask()[1] for _ in range(4)})
        third.end()
    finally:
        names.socket.close()
        second.end()
