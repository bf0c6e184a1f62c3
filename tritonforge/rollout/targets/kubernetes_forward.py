"""Ports of pods as ports of this machine, through the API server.

Source of the framing: Kubernetes' websocket port-forward (kubelet, cri/streaming/portforward/websocket.go): channel 0
has the data, channel 1 errors; the first message of each is the port's number.
"""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tritonforge.errors import ForgeError
from tritonforge.rollout.targets.kubernetes_api import Cluster

_BLOCK: Final = 1 << 17
_DATA: Final = b"\0"


class Forwarding:
    """Local ports that lead to pods; a context manager. ``pick`` names the pod of a new connection, None: there is
    none, and the connection is closed."""

    def __init__(self, cluster: Cluster, pick: Callable[[], str | None]) -> None:
        self._cluster = cluster
        self._pick = pick
        self._listeners: list[socket.socket] = []
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> Forwarding:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def port(self, port: int) -> str:
        """``HOST:PORT`` here, for a port of the pod."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    def metrics(self, pods: Callable[[], Sequence[str]], port: int) -> str:
        """``HOST:PORT`` of a server whose ``/metrics`` are those of all the pods, one after the other."""
        cluster = self._cluster

        class Metrics(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    text = b"".join(fetch(cluster, pod, port, "/metrics") for pod in pods())
                except (ForgeError, OSError, http.client.HTTPException) as error:
                    self.send_error(502, str(error).splitlines()[0][:200])
                    return
                self.send_response(200 if text else 503)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing is logged."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
        server.daemon_threads = True
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, port), daemon=True).start()

    def _serve(self, connection: socket.socket, port: int) -> None:
        with connection, suppress(ForgeError):
            pod = self._pick()
            if pod is not None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                bridge(self._cluster, pod, port, connection)


def fetch(cluster: Cluster, pod: str, port: int, path: str) -> bytes:
    """The body of one HTTP answer of a pod.

    Raises:
        ForgeError: the pod is not reached.
        http.client.HTTPException, OSError: it gives no answer, or another than 200.
    """
    here, there = socket.socketpair()
    worker = threading.Thread(target=_quietly, args=(cluster, pod, port, there), daemon=True)
    worker.start()
    with here:
        here.settimeout(10)
        here.sendall(f"GET {path} HTTP/1.0\r\nHost: {pod}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(here)
        answer.begin()
        if answer.status != 200:
            raise http.client.HTTPException(f"{pod} answers {answer.status}")
        return answer.read()


def _quietly(cluster: Cluster, pod: str, port: int, end: socket.socket) -> None:
    with end, suppress(ForgeError):
        bridge(cluster, pod, port, end)


def bridge(cluster: Cluster, pod: str, port: int, local: socket.socket) -> None:
    """Carry bytes both ways until either side ends.

    One thread does both, as two must not use one TLS connection at a time.
    """
    import websocket

    ws = cluster.websocket(cluster.path("pods", pod, part="portforward"), [("ports", str(port))])
    try:
        raw = ws.sock
        begun: set[int] = set()
        while True:
            # What TLS has decrypted already does not show on the socket.
            pending = getattr(raw, "pending", int)() > 0
            readable: list[Any] = select.select([local, raw], [], [], 0 if pending else None)[0]
            if local in readable:
                data = local.recv(_BLOCK)
                if not data:
                    return
                ws.send(_DATA + data, opcode=websocket.ABNF.OPCODE_BINARY)
            if pending or raw in readable:
                opcode, frame = ws.recv_data_frame(True)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return
                if opcode != websocket.ABNF.OPCODE_BINARY or not frame.data:
                    continue
                channel = frame.data[0]
                if channel not in begun:
                    begun.add(channel)
                elif channel == 0:
                    local.sendall(memoryview(frame.data)[1:])
                else:
                    return  # the pod does not listen there, or went away
    except (websocket.WebSocketException, OSError, ValueError):
        return
    finally:
        with suppress(websocket.WebSocketException, OSError):
            ws.close(timeout=1)
