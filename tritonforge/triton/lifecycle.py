"""Start a Triton server, wait until it is ready or say why it is not, and stop it without a trace."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError
from tritonforge.triton import ports as port_choice
from tritonforge.triton import serverlog
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection
from tritonforge.triton.container import ContainerServer, start_container
from tritonforge.triton.embedded.command import command_for as embedded_command
from tritonforge.triton.embedded.machine import OTHER_WAYS
from tritonforge.triton.embedded.runtime import Runtime
from tritonforge.triton.installed import InstalledServer
from tritonforge.triton.installed import command_for as installed_command
from tritonforge.triton.launch import Launch
from tritonforge.triton.ports import Ports, PortTaken
from tritonforge.triton.process import ServerProcess, start_warded

Program = Runtime | InstalledServer | ContainerServer
_ATTEMPTS: Final = 5
_POLL: Final = 0.02


class RunningServer:
    """A server that :func:`start` started; stop it, or use it as a context manager."""

    def __init__(
        self, process: ServerProcess, connection: Connection, log_path: Path, offset: int, launch: Launch, owned: bool
    ) -> None:
        self.connection = connection
        self.log_path = log_path
        self.launch = launch
        self._process = process
        self._offset = offset
        self._owns_log = owned
        self._clients: list[Client] = []

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id; None in a container."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process.poll() is None

    def client(self) -> Client:
        """A new client of this server, which explains failed loads from the server's log."""
        client = Client(self.connection, explain=self.explain)
        self._clients.append(client)
        return client

    def log(self) -> str:
        """What the server has said since it was started."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as stream:
            stream.seek(self._offset)
            return stream.read().decode(errors="replace")
        return ""

    def load_failures(self) -> dict[str, str]:
        """Models that failed to load since the start, with the reasons from the log."""
        return serverlog.load_failures(self.log())

    def explain(self, model: str) -> str | None:
        """Why ``model`` did not load, in the log's words, with the backends at hand when one was missing."""
        reason = self.load_failures().get(model)
        return None if reason is None else _with_backends(reason, self._process.backends)

    def stop(self, grace: float | None = None) -> None:
        """Stop the server and remove what it left; 0 kills it at once, None allows ``launch.exit_timeout``."""
        # An idle HTTP connection keeps Triton from ending until its exit timeout is over.
        for client in self._clients:
            client.close()
        self._process.stop(self.launch.exit_timeout + 1.0 if grace is None else grace)
        if self._owns_log:
            self.log_path.unlink(missing_ok=True)


def start(launch: Launch, program: Program) -> RunningServer:
    """Start ``program`` on ``launch.repository`` and return when it is ready.

    Free ports are tried again when another program takes one first. The server ends with this process, even when
    this process is killed.

    Raises:
        CheckFailed: a model did not load; each is named with its reason from the server's log.
        EnvironmentLacks: the server cannot run here, ended for another reason, was not ready in time, or a port that
            was asked for is in use.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        ports = port_choice.choose(launch.host, launch.http, launch.grpc, launch.metrics)
        server = None
        try:
            server = _begin(launch, program, ports)
            _wait_ready(server, launch, ports)
        except PortTaken as taken:
            if server is not None:
                server.stop(0)
            if taken.port in (launch.http, launch.grpc, launch.metrics):
                raise port_choice.in_use(taken.port) from None
            if attempt == _ATTEMPTS:
                raise EnvironmentLacks(f"port {taken.port} was taken by another program, {_ATTEMPTS} times") from None
        except BaseException:
            if server is not None:
                server.stop(0)
            raise
        else:
            return server
    raise AssertionError("unreachable")


def _begin(launch: Launch, program: Program, ports: Ports) -> RunningServer:
    owned = launch.log_path is None
    log = launch.log_path
    if log is None:
        with tempfile.NamedTemporaryFile(prefix="tritonforge-", suffix=".log", delete=False) as stream:
            log = Path(stream.name)
    log = log.absolute()
    offset = log.stat().st_size if log.exists() else 0
    process: ServerProcess
    if isinstance(program, ContainerServer):
        process = start_container(program, launch, ports, log)
    else:
        scratch = Path(tempfile.mkdtemp(prefix="tritonforge-"))
        try:
            if isinstance(program, Runtime):
                command = embedded_command(program, launch, ports, scratch)
            else:
                command = installed_command(program, launch, ports, scratch)
            process = start_warded(command, log, launch.exit_timeout)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    shown = f"[{launch.host}]" if ":" in launch.host else launch.host
    if launch.host in ("0.0.0.0", "::"):  # noqa: S104 - a listening address is no address to call
        shown = "127.0.0.1" if launch.host == "0.0.0.0" else "[::1]"  # noqa: S104
    connection = Connection(f"{shown}:{ports.http}", f"{shown}:{ports.grpc}", f"{shown}:{ports.metrics}")
    return RunningServer(process, connection, log, offset, launch, owned)


def _wait_ready(server: RunningServer, launch: Launch, ports: Ports) -> None:
    deadline = time.monotonic() + launch.ready_timeout
    while True:
        if not server.running:
            raise _ended(server)
        if _answers(server.connection, "/v2/health/ready"):
            # Something else may answer on that port when the server could not have it.
            if server.running and serverlog.busy_port(server.log()) is None:
                return
            continue
        if not launch.exit_on_error and _answers(server.connection, "/v2/health/live"):
            failures = server.load_failures()
            if failures and launch.control != "poll":
                raise _not_loaded(server, failures)
        if time.monotonic() >= deadline:
            said = server.load_failures()
            if said:
                raise _not_loaded(server, said)
            raise EnvironmentLacks(
                f"the Triton server was not ready within {launch.ready_timeout:g} s",
                details=serverlog.last_errors(server.log()),
                hint=_log_hint(server),
            )
        time.sleep(_POLL)


def _answers(connection: Connection, path: str) -> bool:
    probe = http.client.HTTPConnection(connection.http or "", timeout=2.0)
    try:
        probe.request("GET", path)
        return probe.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()


def _ended(server: RunningServer) -> Exception:
    text = server.log()
    busy = serverlog.busy_port(text)
    if busy is not None:
        return PortTaken(busy)
    failures = serverlog.load_failures(text)
    if failures:
        return _not_loaded(server, failures)
    code = server._process.poll()
    return EnvironmentLacks(
        f"the Triton server ended before it was ready (exit code {code})",
        details=serverlog.last_errors(text),
        hint=_log_hint(server),
    )


def _not_loaded(server: RunningServer, failures: dict[str, str]) -> ForgeError:
    backends = server._process.backends
    names = sorted(failures)
    what = f"model '{names[0]}' does not load" if len(names) == 1 else f"{len(names)} models do not load"
    lacking = serverlog.missing_backends("\n".join(failures.values()))
    hint = _log_hint(server)
    if lacking:
        # Only our own server says which backends it has: what others lack, an image or an installation can have.
        ways = OTHER_WAYS if backends else "choose an image or an installation that has it"
        hint = f"this server has no backend {' or '.join(lacking)}; {ways}"
    return CheckFailed(
        what, details=[f"{name}: {_with_backends(failures[name], backends)}" for name in names], hint=hint
    )


def _with_backends(reason: str, backends: tuple[str, ...]) -> str:
    lacking = serverlog.missing_backends(reason)
    if not lacking or not backends:
        return reason
    return f"{reason} (this server has no backend '{lacking[0]}'; it has: {', '.join(sorted(backends))})"


def _log_hint(server: RunningServer) -> str | None:
    return None if server._owns_log else f"the server's log is {server.log_path}"
