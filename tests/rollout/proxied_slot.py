"""A slot to put a proxy before: a program that answers like a Triton, says who it is, and fails when told to.

``python proxied_slot.py NAME HTTP GRPC METRICS``. What it does with a request is in the request's headers (over gRPC:
its metadata): ``x-die: NAME`` ends the process once the request has been read, ``x-fail: NAME=STATUS`` answers so, and
``x-sleep: SECONDS`` takes its time. ``POST /test/ready`` with ``0`` or ``1`` turns its readiness.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

SERVICE = "inference.GRPCInferenceService"
ready = threading.Event()


def obey(name: str, headers: Mapping[str, str]) -> int:
    """Do what the headers ask for; the status to answer with."""
    if headers.get("x-die") == name:
        os._exit(1)
    time.sleep(float(headers.get("x-sleep", 0)))
    who, _, status = headers.get("x-fail", "").partition("=")
    return int(status) if who == name else 200


class Slot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer goes out as one piece: one that breaks off in the middle cannot be asked for again
    name = ""

    def do_GET(self) -> None:
        if self.path == "/v2/health/ready":
            self._answer(200 if ready.is_set() else 503, {})
        elif self.path == "/metrics":
            self._answer(200, {"metrics_of": self.name})
        else:
            self._answer(200, {"name": self.name, "path": self.path})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/test/ready":
            (ready.set if body == b"1" else ready.clear)()
        headers = {key.lower(): value for key, value in self.headers.items()}
        status = obey(self.name, headers)
        self._answer(status, {"name": self.name, "size": len(body), "headers": headers})

    def _answer(self, status: int, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def grpc_server(name: str, port: int) -> grpc.Server:
    """Unary and streamed calls of any method; bytes in, JSON out."""

    def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        status = obey(name, headers)
        if status != 200:
            context.abort(grpc.StatusCode.INTERNAL, f"{name} failed")
        return json.dumps({"name": name, "size": len(body), "headers": headers}).encode()

    def stream(bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for body in bodies:
            yield answer(body, context)

    methods = {
        method: grpc.unary_unary_rpc_method_handler(answer)
        for method in ("ModelInfer", "ServerReady", "RepositoryModelLoad", "RepositoryIndex", "TraceSetting")
    }
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stream)
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(16), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    return server


class Listener(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a proxy that closes a connection is no error here."""


def main(name: str, http: int, rpc: int, metrics: int) -> None:
    Slot.name = name
    ready.set()
    server = grpc_server(name, rpc)
    server.start()
    threading.Thread(target=Listener(("127.0.0.1", metrics), Slot).serve_forever, daemon=True).start()
    Listener(("127.0.0.1", http), Slot).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
