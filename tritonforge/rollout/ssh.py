"""Another machine over SSH: programs run there, and sockets of it that are reached from here.

It is the system's OpenSSH client, so that the user's ``~/.ssh/config``, agent, jump hosts and known hosts hold. One
connection serves everything; it ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.ssh_address import SshAddress
from tritonforge.rollout.ssh_failures import gist, lost, unreached
from tritonforge.rollout.ssh_process import SshOptions, environment, private_folder, program
from tritonforge.rollout.ssh_tunnel import Tunnel, local_end, require_endpoint

_MARK: Final = "tritonforge-connected"
_ASKED: Final = "mux_client_request_session:"
"""What ssh begins with when the program was asked for, and may have been started."""
_REFUSED: Final = f"{_ASKED} session request failed"
_UNCONNECTED: Final = "_exchange_identification:"
"""What ssh says when it finds no connection, and the way of its own that it then tries is none."""
_USABLE: Final = '[ -S "$1" ] && [ -r "$1" ] && [ -w "$1" ]'


@dataclass(frozen=True, slots=True)
class Completed:
    """How a remote program ended."""

    stdout: bytes
    stderr: str
    code: int

    @property
    def text(self) -> str:
        """What it printed, as UTF-8."""
        return self.stdout.decode("utf-8", "replace")


@dataclass(slots=True)
class SshHost:
    """A machine as ssh names it: ``user@host``, ``user@host:port``, or a name of ``~/.ssh/config``.

    Safe for threads. Use it as a context, or call :meth:`close`.

    Raises:
        UsageError: the address is none.
    """

    address: str
    options: SshOptions = field(default_factory=SshOptions)
    _named: SshAddress = field(init=False, repr=False)
    _master: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _folder: Path | None = field(default=None, init=False, repr=False)
    _tunnels: list[Tunnel] = field(default_factory=list, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._named = SshAddress.parse(self.address)

    def __enter__(self) -> SshHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, argv: Sequence[str], *, stdin: bytes | IO[bytes] | None = None, timeout: float | None = None
    ) -> Completed:
        """Run a program there, its arguments quoted for the other side's (POSIX) shell.

        ``stdin`` is bytes, or an open file. A connection that was lost since the last call is made anew.

        Raises:
            EnvironmentLacks: there is no connection, or the program does not end within ``timeout`` seconds.
            ConnectionLost: the connection broke in the meantime.
        """
        self.connect()
        before = len(self._said())
        done = self._run(argv, stdin, timeout)
        if done.code >= 0 and done.code != 255:
            return done
        answers = self._answers()
        if _UNCONNECTED in done.stderr and _ASKED not in done.stderr and not answers:
            # Lost since the last call, and only now noticed: nothing was started over there.
            with self._lock:
                if not self._answers():
                    self._end_master()
                self.connect()
            done = self._run(argv, stdin, timeout)
            answers = done.code != 255 or self._answers()
        if _REFUSED in done.stderr and answers:
            raise EnvironmentLacks(
                f"{self.address} refused to run `{argv[0]}`",
                found=gist(done.stderr.partition("\n")[0]),
                hint="its sshd may allow too few sessions at a time (MaxSessions), or no commands for this user",
            )
        if done.code < 0 or not answers:
            raise lost(self.address, argv[0], done.stderr + self._said()[before:])
        return done

    def _run(self, argv: Sequence[str], stdin: bytes | IO[bytes] | None, timeout: float | None) -> Completed:
        client = subprocess.Popen(
            [*self._client(), "-T", "--", self._named.host, shlex.join(argv)],
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        try:
            stdout, errors = client.communicate(stdin if isinstance(stdin, bytes) else None, timeout)
        except subprocess.TimeoutExpired:
            raise EnvironmentLacks(
                f"`{argv[0]}` on {self.address} did not end within {timeout:g} s; it may still be running there"
            ) from None
        finally:
            # Also on Ctrl-C: the client is in a session of its own. The connection's ssh holds the other ends of the
            # pipes, so nobody waits for their end.
            if client.poll() is None:
                client.kill()
                client.wait()
            for stream in (client.stdin, client.stdout, client.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        return Completed(stdout, errors.decode("utf-8", "replace"), client.returncode)

    def connect(self) -> None:
        """Have a connection with all open tunnels: nothing where it stands, made anew where it was lost.

        Raises:
            EnvironmentLacks: ssh is not installed, or there is no connection to be had; with the cause.
        """
        with self._lock:
            if self._master is not None and self._master.poll() is None:
                return
            self._end_master()
            self._start_master()
            for tunnel in self._tunnels:
                tunnel.forget()
                self._control("forward", tunnel)

    @contextlib.contextmanager
    def tunnel(self, remote: str, *, unix: bool | None = None) -> Iterator[str]:
        """A local endpoint for ``remote``: a socket's path there, or ``HOST:PORT`` as seen from there.

        It is a socket in a private folder for a socket, ``127.0.0.1:PORT`` for a port; ``unix`` asks for a socket
        either way. It stays the same when the connection is made anew (:meth:`connect`).

        Raises:
            EnvironmentLacks: there is no connection, forwarding is refused there, or the socket cannot be opened.
        """
        require_endpoint(remote)
        path = remote.startswith("/")
        self.connect()
        with self._lock:
            tunnel = self._open_tunnel(remote, path if unix is None else unix)
        try:
            self._probe(tunnel, must_open=path)
            yield tunnel.local
        finally:
            with self._lock:
                self._tunnels.remove(tunnel)
                if self._master is not None and self._master.poll() is None:
                    with contextlib.suppress(EnvironmentLacks):
                        self._control("cancel", tunnel)
            tunnel.forget()

    def close(self) -> None:
        """End the connection and all that goes over it; a later call makes it anew."""
        with self._lock:
            self._end_master()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _client(self) -> list[str]:
        """ssh as a client of the connection. Without one it must not try on its own, with half of the options."""
        assert self._folder is not None
        own = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
        return [program(), "-F", "/dev/null", "-S", str(self._folder / "c"), *own]

    def _start_master(self) -> None:
        if self._folder is None:
            self._folder = private_folder()
        log = self._folder / "log"
        with log.open("wb") as stream:
            self._master = subprocess.Popen(
                [
                    *(program(), "-M", "-S", str(self._folder / "c"), "-T", *self.options.arguments()),
                    *self._named.arguments(),
                    # The program over there ends with its input, which is open as long as this process lives.
                    *("--", self._named.host, f"echo {_MARK}; exec cat >/dev/null"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment(),
                # Ctrl-C is for tritonforge, which may have something to undo over this connection.
                start_new_session=True,
            )
        try:
            self._await_master(time.monotonic() + self.options.connect_timeout + 10)
        except BaseException:
            self._end_master()
            raise

    def _await_master(self, ends: float) -> None:
        master = self._master
        assert master is not None
        while (line := _read_line(master, ends)) != _MARK:
            # Before the mark there may be what the other side's shell says at each login.
            if not line and (master.poll() is not None or time.monotonic() > ends):
                raise unreached(self.address, self._said(), timed_out=master.poll() is None)

    def _end_master(self) -> None:
        master, self._master = self._master, None
        if master is None:
            return
        for stream in (master.stdin, master.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        master.terminate()
        try:
            master.wait(2)
        except subprocess.TimeoutExpired:
            master.kill()
            master.wait()

    def _answers(self) -> bool:
        """Whether the connection stands."""
        if self._master is None or self._master.poll() is not None:
            return False
        asked = [*self._client(), "-O", "check", "--", self._named.host]
        try:
            return subprocess.run(asked, capture_output=True, env=environment(), timeout=10).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _said(self) -> str:
        """What the connection's ssh wrote on its standard error."""
        if self._folder is None:
            return ""
        try:
            return (self._folder / "log").read_text("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _open_tunnel(self, remote: str, unix: bool) -> Tunnel:
        assert self._folder is not None
        for attempt in range(5):
            tunnel = Tunnel(local_end(self._folder if unix else None), remote)
            try:
                self._control("forward", tunnel)
            except EnvironmentLacks:
                # Another program may have taken the port meanwhile.
                if unix or attempt == 4 or self._master is None or self._master.poll() is not None:
                    raise
                continue
            self._tunnels.append(tunnel)
            return tunnel
        raise AssertionError("unreachable")

    def _control(self, order: str, tunnel: Tunnel) -> None:
        words = [*self._client(), "-O", order, "-L", tunnel.specification, "--", self._named.host]
        # The socket is this user's alone (ssh's default mask says so too).
        words[1:1] = ["-o", "StreamLocalBindMask=0177", "-o", "StreamLocalBindUnlink=yes"]
        try:
            ran = subprocess.run(words, capture_output=True, env=environment(), timeout=30)
        except subprocess.TimeoutExpired:
            raise lost(self.address, f"tunnel to {tunnel.remote}", self._said()) from None
        if ran.returncode != 0:
            said = ran.stderr.decode("utf-8", "replace")
            raise EnvironmentLacks(f"no tunnel to {tunnel.remote} of {self.address}", found=gist(said + self._said()))

    def _probe(self, tunnel: Tunnel, *, must_open: bool) -> None:
        """Open it once: ssh listens here whether or not the other side lets anybody through."""
        before = len(self._said())
        with tunnel.connect() as opened:
            # What is asked over one connection is answered in order: after this, a refusal has arrived.
            self.run(["true"], timeout=60)
            opened.setblocking(False)
            try:
                closed = opened.recv(1) == b""
            except BlockingIOError:
                closed = False
            except OSError:
                closed = True
        said = self._said()[before:]
        if not closed:
            return
        # For a socket sshd says the same whether it may not or cannot open it; the shell there knows more.
        usable = must_open and self.run(["sh", "-c", _USABLE, "sh", tunnel.remote], timeout=60).code == 0
        if usable or "administratively prohibited" in said:
            raise EnvironmentLacks(
                f"{self.address} lets no tunnel through to {tunnel.remote}",
                found=gist(said),
                hint=(
                    "its sshd forbids it: set AllowStreamLocalForwarding and AllowTcpForwarding to yes (or local) in "
                    "/etc/ssh/sshd_config there, and take `restrict` or `no-port-forwarding` off the key"
                ),
            )
        if must_open:
            raise EnvironmentLacks(
                f"{tunnel.remote} of {self.address} cannot be opened",
                found=gist(said) or None,
                hint="does its program run there, and may this user use it?",
            )


def _read_line(process: subprocess.Popen[bytes], ends: float) -> str:
    """The next line of its output; empty at the end of it or of the time."""
    assert process.stdout is not None
    fd, line = process.stdout.fileno(), b""
    while select.select([fd], [], [], max(0.0, ends - time.monotonic()))[0]:
        # Byte by byte: nothing may be left in a buffer that select does not see.
        byte = os.read(fd, 1)
        if byte in (b"", b"\n"):
            break
        line += byte
    return line.decode("utf-8", "replace").strip()
