"""Run a program in a pod's container, with something on its standard input.

Source of the framing: Kubernetes' ``v4.channel.k8s.io`` (apimachinery, util/remotecommand/constants.go): the first byte
of a message is its stream. Standard input cannot be closed, so what reads it must know by itself where it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.points import lost
from tritonforge.rollout.targets.kubernetes_api import Cluster

STDOUT: Final = 1
STDERR: Final = 2
STATUS: Final = 3
BLOCK: Final = 1 << 17
"""Bytes of one message."""
PING: Final = 10.0
"""Seconds of silence after which a connection is told that it is still wanted: what lies between ends idle ones."""


@dataclass(slots=True)
class Ran:
    """What a program wrote, and its exit code; None while it runs, or where it is not known."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    code: int | None = None
    said: str = ""
    """Why it could not be run."""


def execute(
    cluster: Cluster, pod: str, container: str, argv: Iterable[str], parts: Iterable[bytes], timeout: float
) -> Ran:
    """Run ``argv`` with ``parts`` on its input, and wait until it ends.

    Raises:
        EnvironmentLacks: the pod is not reached, the connection was lost, or it took longer than ``timeout`` seconds.
    """
    import websocket

    query = [("command", word) for word in argv]
    query += [("container", container), *((name, "true") for name in ("stdin", "stdout", "stderr"))]
    ws = cluster.websocket(cluster.path("pods", pod, part="exec"), query)
    ran = Ran()
    ends = time.monotonic() + timeout
    try:
        ws.settimeout(timeout)
        try:
            for part in parts:
                ws.send(b"\0" + part, opcode=websocket.ABNF.OPCODE_BINARY)
        except (websocket.WebSocketException, OSError):
            pass  # it ended before it had read all; what it said tells why
        for stream, data in _messages(ws, ends, f"a program in {pod}"):
            _take(ran, stream, data)
    finally:
        ws.close(timeout=1)
    if ran.code is None:
        raise lost(f"pod {pod}: {ran.said or 'the connection ended before the program did'}")
    return ran


class Ended(Exception):
    """A program ended, or the connection to it (``code`` None), before it had answered."""

    def __init__(self, code: int | None, said: str) -> None:
        super().__init__(said)
        self.code = code
        self.said = said


class Session:
    """A program in a pod that answers each line with one line."""

    def __init__(self, cluster: Cluster, pod: str, container: str, argv: Iterable[str]) -> None:
        query = [("command", word) for word in argv]
        query += [("container", container), *((name, "true") for name in ("stdin", "stdout", "stderr"))]
        self._ws = cluster.websocket(cluster.path("pods", pod, part="exec"), query)
        self._pod = pod

    def ask(self, line: bytes, timeout: float) -> bytes:
        """One answer.

        Raises:
            Ended: there will be none.
            EnvironmentLacks: it took longer than ``timeout`` seconds.
        """
        import websocket

        ran, ends = Ran(), time.monotonic() + timeout
        try:
            self._ws.settimeout(timeout)
            for at in range(0, len(line), BLOCK):
                self._ws.send(b"\0" + line[at : at + BLOCK], opcode=websocket.ABNF.OPCODE_BINARY)
        except (websocket.WebSocketException, OSError) as error:
            ran.said = str(error)
        for stream, data in _messages(self._ws, ends, f"the agent in {self._pod}"):
            _take(ran, stream, data)
            if ran.stdout.endswith(b"\n"):
                return bytes(ran.stdout)
        said = ran.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Ended(ran.code, f"pod {self._pod}: {said[0] if said else ran.said or 'the connection ended'}")

    def close(self) -> None:
        """End the program."""
        with suppress(Exception):
            self._ws.close(timeout=1)


def _messages(ws: Any, ends: float, what: str) -> Iterator[tuple[int, bytes]]:
    """Stream and bytes, until the other side closes the connection."""
    import websocket

    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise EnvironmentLacks(f"{what} takes too long", hint="its pod may be starved: look at `kubectl describe`")
        ws.settimeout(min(left, PING))
        try:
            opcode, frame = ws.recv_data_frame(True)
        except websocket.WebSocketTimeoutException:
            ws.ping()
            continue
        except (websocket.WebSocketException, OSError):
            return
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        if opcode in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and frame.data:
            yield frame.data[0], frame.data[1:]


def _take(ran: Ran, stream: int, data: bytes) -> None:
    if stream == STDOUT:
        ran.stdout += data
    elif stream == STDERR:
        ran.stderr += data
    elif stream == STATUS:
        said = json.loads(data)
        if said.get("status") == "Success":
            ran.code = 0
            return
        causes = (said.get("details") or {}).get("causes") or []
        code = next((item["message"] for item in causes if item.get("reason") == "ExitCode"), None)
        ran.code = None if code is None else int(code)
        ran.said = str(said.get("message") or "")
