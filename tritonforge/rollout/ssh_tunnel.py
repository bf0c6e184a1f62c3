"""The two ends of a tunnel."""

from __future__ import annotations

import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonforge.errors import UsageError

# ssh itself separates by colons and takes brackets and backslashes as its own.
_SOCKET: Final = re.compile(r"/[^\s:\[\]\\]+")
_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_][\w.-]*):\d{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A way to an endpoint of another machine: ``local`` is a socket's path, or ``127.0.0.1:PORT``."""

    local: str
    remote: str

    @property
    def specification(self) -> str:
        """It as ``ssh -L`` takes it."""
        return f"{self.local}:{self.remote}"

    def connect(self) -> socket.socket:
        """Open it."""
        if self.local.startswith("/"):
            opened = socket.socket(socket.AF_UNIX)
            opened.connect(self.local)
            return opened
        host, _, port = self.local.rpartition(":")
        return socket.create_connection((host, int(port)), 10)

    def forget(self) -> None:
        """Delete what a connection that was lost left of it here."""
        if self.local.startswith("/"):
            Path(self.local).unlink(missing_ok=True)


def require_endpoint(remote: str) -> None:
    """Refuse what is neither a socket's path nor ``HOST:PORT``.

    Raises:
        UsageError: a tunnel cannot lead there.
    """
    if not (_SOCKET if remote.startswith("/") else _PORT).fullmatch(remote):
        raise UsageError(f"'{remote}' cannot be reached by a tunnel", expected="a socket's path, or HOST:PORT")


def local_end(folder: Path | None) -> str:
    """A socket's path in ``folder``; without one a port of this machine that is free now."""
    if folder is not None:
        return str(folder / uuid.uuid4().hex[:12])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
