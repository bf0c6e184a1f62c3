"""Remote stores that are broken in a way of their own."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import IO


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []
    closing = threading.Event()

    def accept() -> None:
        while not closing.is_set():
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    closing.set()
    listener.close()
    for connection in taken:
        connection.close()


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def in_front_of(
    endpoint: str,
    *,
    refuse: tuple[str, ...] = (),
    delay_s: float = 0.0,
    silent_after: int | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """A proxy before an S3 server: refuses methods with 403, waits before each answer, or goes silent after some.

    Gives its address, and the requests that it has had.
    """
    seen: list[str] = []
    closing = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = _body(self.headers, self.rfile)
            if body is None:
                return  # the client is gone; a real server keeps no part either
            seen.append(f"{self.command} {self.path}")
            if silent_after is not None and len(seen) > silent_after:
                closing.wait(60)
                return
            time.sleep(delay_s)
            if self.command in refuse:
                status, headers, answer = 403, {}, b"" if self.command == "HEAD" else _DENIED
            else:
                status, headers, answer = _ask(endpoint, self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that the class asks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    closing.set()
    server.shutdown()
    server.server_close()


def _body(headers: Message, stream: IO[bytes]) -> bytes | None:
    """What a client sent, whole; None where it left in the middle."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        length = int(headers.get("content-length") or 0)
        body = stream.read(length)
        return body if len(body) == length else None
    pieces = []
    while line := stream.readline():
        size = int(line.split(b";")[0], 16)
        piece = stream.read(size + 2)
        if len(piece) < size + 2:
            return None
        if size == 0:
            return b"".join(pieces)
        pieces.append(piece[:-2])
    return None


_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def _ask(
    endpoint: str, method: str, path: str, headers: dict[str, str], body: bytes
) -> tuple[int, dict[str, str], bytes]:
    dropped = ("connection", "expect", "transfer-encoding", "content-length")
    kept = {name: value for name, value in headers.items() if name.lower() not in dropped}
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body or None, kept)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()
