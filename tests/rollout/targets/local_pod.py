"""A pod made of a folder of this machine: what is executed in it are processes here, by Kubernetes' framing."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import websocket

from tritonforge.rollout.agent import AGENT


class LocalSocket:
    """One end of a connection as ``websocket`` has it; messages are length-prefixed on a pair of sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def settimeout(self, seconds: float) -> None:
        self.sock.settimeout(seconds)

    def send(self, data: bytes, opcode: int = 2) -> None:
        self.sock.sendall(struct.pack(">IB", len(data), opcode) + data)

    def recv_data_frame(self, control: bool) -> tuple[int, Any]:
        size, opcode = struct.unpack(">IB", self._exactly(5))
        return opcode, websocket.ABNF(data=self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                part = self.sock.recv(size - len(found))
            except TimeoutError:
                raise websocket.WebSocketTimeoutException from None
            if not part:
                raise websocket.WebSocketConnectionClosedException
            found += part
        return found

    def ping(self) -> None:
        """Nobody has to be told."""

    def close(self, timeout: float = 0) -> None:
        self.sock.close()


class LocalCluster:
    """``root`` is the pod's volume. ``cut`` is the number of bytes of input after which a connection is lost."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        self.root = root
        self.port = port
        self.cut: int | None = None
        self.ran: list[list[str]] = []

    def path(self, kind: str, name: str | None = None, group: str = "v1", part: str | None = None) -> str:
        return f"/{kind}/{quote(str(name))}/{part}"

    def websocket(self, path: str, query: Sequence[tuple[str, str]]) -> LocalSocket:
        here, there = socket.socketpair()
        serve = self._exec if path.endswith("exec") else self._forward
        threading.Thread(target=serve, args=(LocalSocket(there), query), daemon=True).start()
        return LocalSocket(here)

    def _exec(self, ws: LocalSocket, query: Sequence[tuple[str, str]]) -> None:
        places = {"python3": sys.executable, "/agent/agent.py": str(AGENT), "/tritonforge": str(self.root)}
        argv = [places.get(value, value) for key, value in query if key == "command"]
        self.ran.append(argv)
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        out = threading.Thread(target=self._copy, args=(process.stdout, ws, b"\1"))
        err = threading.Thread(target=self._copy, args=(process.stderr, ws, b"\2"))
        for copy in (out, err):
            copy.start()
        threading.Thread(target=self._feed, args=(ws, process), daemon=True).start()
        code = process.wait()
        out.join()
        err.join()
        status: dict[str, Any] = {"status": "Success"}
        if code:
            causes = [{"reason": "ExitCode", "message": str(code)}]
            status = {"status": "Failure", "message": f"exit code {code}", "details": {"causes": causes}}
        with suppress(OSError):  # the other side may be gone
            if self.cut is None:
                ws.send(b"\3" + json.dumps(status).encode())
            ws.sock.shutdown(socket.SHUT_RDWR)
        ws.close()

    def _feed(self, ws: LocalSocket, process: subprocess.Popen[bytes]) -> None:
        left = self.cut
        assert process.stdin is not None
        try:
            while True:
                data = ws.recv_data_frame(True)[1].data[1:]
                process.stdin.write(data if left is None else data[:left])
                process.stdin.flush()
                left = None if left is None else max(0, left - len(data))
                if left == 0:
                    process.stdin.close()
                    process.wait()
                    return
        except (websocket.WebSocketException, OSError, ValueError):
            with suppress(OSError):
                process.stdin.close()

    def _copy(self, stream: Any, ws: LocalSocket, channel: bytes) -> None:
        with suppress(OSError):
            for line in iter(stream.readline, b""):
                ws.send(channel + line)

    def _forward(self, ws: LocalSocket, query: Sequence[tuple[str, str]]) -> None:
        number = int(dict(query)["ports"])
        for channel in (b"\0", b"\1"):
            ws.send(channel + struct.pack("<H", number))
        if self.port is None:
            ws.send(b"\1" + b"nobody listens there")
            ws.close()
            return
        with socket.create_connection(("127.0.0.1", self.port)) as remote:
            threading.Thread(target=self._up, args=(ws, remote), daemon=True).start()
            for part in iter(lambda: remote.recv(65536), b""):
                ws.send(b"\0" + part)
            ws.sock.shutdown(socket.SHUT_RDWR)

    def _up(self, ws: LocalSocket, remote: socket.socket) -> None:
        try:
            while True:
                remote.sendall(ws.recv_data_frame(True)[1].data[1:])
        except (websocket.WebSocketException, OSError):
            return
