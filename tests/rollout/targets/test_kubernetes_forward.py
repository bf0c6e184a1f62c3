"""Ports of pods as ports of this machine: bytes go both ways, and a pod that is not there closes the connection."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

pytest.importorskip("websocket")

from rollout.targets.local_pod import LocalCluster
from tritonforge.rollout.targets.kubernetes_api import Cluster
from tritonforge.rollout.targets.kubernetes_forward import Forwarding, fetch


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'a_count{model="m"} 1\n' if self.path == "/metrics" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield cast(Cluster, LocalCluster(tmp_path, server.server_port))
    server.shutdown()
    server.server_close()


def test_large_bodies_go_there_and_back_on_many_connections(cluster: Cluster) -> None:
    wrong: list[int] = []

    def ask(number: int, address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=20)
        for _ in range(3):
            body = bytes([number]) * 300_000 + b"end"
            connection.request("POST", "/", body)
            if connection.getresponse().read() != body[::-1]:
                wrong.append(number)
        connection.close()

    with Forwarding(cluster, lambda: "pod") as forwarding:
        address = forwarding.port(8000)
        clients = [threading.Thread(target=ask, args=(number, address)) for number in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(30)
            assert not client.is_alive()
    assert wrong == []


def test_without_a_pod_or_with_nobody_listening_the_connection_is_closed(cluster: Cluster, tmp_path: Path) -> None:
    nobody = cast(Cluster, LocalCluster(tmp_path))
    for some, pick in ((cluster, lambda: None), (nobody, lambda: "pod")):
        with Forwarding(some, pick) as forwarding:
            connection = http.client.HTTPConnection(forwarding.port(8000), timeout=10)
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                connection.request("GET", "/")
                connection.getresponse()


def test_metrics_are_those_of_all_pods(cluster: Cluster) -> None:
    with Forwarding(cluster, lambda: None) as forwarding:
        address = forwarding.metrics(lambda: ["one", "two"], 8002)
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().read() == b'a_count{model="m"} 1\n' * 2


def test_an_answer_other_than_200_is_none(cluster: Cluster) -> None:
    assert fetch(cluster, "pod", 8002, "/metrics").startswith(b"a_count")
    with pytest.raises(http.client.HTTPException, match="pod answers 404"):
        fetch(cluster, "pod", 8002, "/else")
