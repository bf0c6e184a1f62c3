"""Ports for a server: free ones, and who holds one that is not."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass

from tritonforge.errors import EnvironmentLacks

_lock = threading.Lock()
_recent: list[int] = []


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports of one server."""

    http: int
    grpc: int
    metrics: int


class PortTaken(Exception):
    """A server could not have ``port``: another program took it first."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


def choose(host: str, http: int | None, grpc: int | None, metrics: int | None) -> Ports:
    """The ports that were asked for, and free ones for those that were not.

    A free port can be taken by another program before the server binds it: whoever starts the server tries again.

    Raises:
        EnvironmentLacks: a port that was asked for is in use; the message names its holder.
    """
    for port in (http, grpc, metrics):
        if port is not None:
            require_free(host, port)
    return Ports(*(free(host) if port is None else port for port in (http, grpc, metrics)))


def require_free(host: str, port: int) -> None:
    """Check that ``port`` can be bound.

    Raises:
        EnvironmentLacks: it is in use, or this user may not bind it.
    """
    with socket.socket(_family(host)) as probe:
        # As servers bind: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise EnvironmentLacks(
                f"port {port} needs privileges that this user has not", hint="choose one above 1023"
            ) from None
        except OSError as error:
            raise in_use(port, str(error)) from None


def in_use(port: int, found: str | None = None) -> EnvironmentLacks:
    """The error for a port that was asked for and is taken."""
    who = holder(port)
    return EnvironmentLacks(
        f"port {port} is in use" + (f" by {who}" if who else ""),
        found=None if who else found,
        hint="stop that program, choose another port, or leave the port out to get a free one",
    )


def free(host: str) -> int:
    """A port that was free a moment ago and was not given out lately by this process."""
    with _lock:
        for _ in range(100):
            with socket.socket(_family(host)) as probe:
                probe.bind((host, 0))
                port: int = probe.getsockname()[1]
            if port not in _recent:
                _recent.append(port)
                del _recent[:-64]
                return port
    raise EnvironmentLacks(f"no free port was found on {host}")


def holder(port: int) -> str | None:
    """The program that listens on ``port``: ``name (process 123)``; None when that is not to be seen."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for item in psutil.net_connections(kind="tcp"):
            if item.status == psutil.CONN_LISTEN and item.laddr and item.laddr.port == port and item.pid:
                with contextlib.suppress(psutil.Error):
                    return f"{psutil.Process(item.pid).name()} (process {item.pid})"
                return f"process {item.pid}"
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
