"""Run a program in a container that runs already, with something on its standard input and a limit on its time."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks

_STDERR: Final = 2
_HEADER: Final = 8


@dataclass(frozen=True, slots=True)
class Ran:
    """How it ended; ``code`` is None where the engine does not know, as when the container died with it."""

    stdout: bytes
    stderr: str
    code: int | None


def run_in(client: Any, container: str, argv: Sequence[str], data: bytes, timeout: float) -> Ran:
    """Run ``argv``; what it reads must say by itself where it ends, as a line does: the stream cannot be half closed.

    Source of the framing: Docker Engine API, "Attach to a container, stream format".

    Raises:
        EnvironmentLacks: it took longer than ``timeout`` seconds.
        docker.errors.APIError: the container is not there or does not run; nothing was started.
        OSError: the connection to the engine broke.
    """
    api = client.api
    made = api.exec_create(container, list(argv), stdin=True, stdout=True, stderr=True)["Id"]
    stream = api.exec_start(made, socket=True)
    out, err = bytearray(), bytearray()
    try:
        raw: socket.socket = getattr(stream, "_sock", stream)
        ends = time.monotonic() + timeout
        raw.settimeout(timeout)
        with suppress(BrokenPipeError):  # a program that reads nothing can still say why
            raw.sendall(data)
        while (header := _exactly(raw, _HEADER, ends)) is not None:
            part = _exactly(raw, int.from_bytes(header[4:], "big"), ends)
            if part is None:
                break
            (err if header[0] == _STDERR else out).extend(part)
    except TimeoutError:
        raise EnvironmentLacks(f"`{argv[-1]}` in {container} took longer than {timeout:g} s") from None
    finally:
        stream.close()
    return Ran(bytes(out), err.decode("utf-8", "replace"), _code(api, made))


def _exactly(raw: socket.socket, size: int, ends: float) -> bytes | None:
    """So many bytes; None at the end of the stream."""
    found = bytearray()
    while len(found) < size:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        raw.settimeout(left)
        part = raw.recv(min(size - len(found), 1 << 16))
        if not part:
            return None
        found += part
    return bytes(found)


def _code(api: Any, made: str) -> int | None:
    # The streams can end a moment before the engine notes how.
    for _ in range(20):
        code = api.exec_inspect(made)["ExitCode"]
        if code is not None:
            return int(code)
        time.sleep(0.05)
    return None
