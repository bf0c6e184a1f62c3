"""A throwaway sshd on loopback: its own port, host key and authorised key."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tritonforge.rollout.ssh_process import SshOptions


@dataclass
class Sshd:
    """One that runs. ``client`` is what its one user needs to get in."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Its address for ssh."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def client(self) -> SshOptions:
        """Its key and its host key, and none of this machine's own configuration."""
        return SshOptions(
            identity=self.folder / "user",
            config=Path("/dev/null"),
            known_hosts=self.folder / "known_hosts",
            connect_timeout=10,
        )

    def connections(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def cut(self) -> None:
        """End all connections at once, as a cable that is pulled; what ran over them goes too."""
        for process in self.connections():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def freeze(self) -> None:
        """Let nothing answer any more."""
        for process in [psutil.Process(self.process.pid), *self.connections()]:
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        for process in [*self.connections(), psutil.Process(self.process.pid)]:
            process.send_signal(signal.SIGCONT)


def make_key(path: Path) -> str:
    """A new key at ``path``; its public half, without the comment."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextmanager
def serve(
    folder: Path, settings: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Sshd]:
    """Run one; ``settings`` go into its sshd_config, ``environment`` is what its sessions get.

    Skips the test where there is no sshd, or where it lets this user not in.
    """
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd and ssh here (Debian: openssh-server, openssh-client)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd gives up its privileges
    folder.mkdir(parents=True, exist_ok=True)
    host_key = make_key(folder / "host")
    (folder / "authorized_keys").write_text(make_key(folder / "user") + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    given = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",  # the folder of a test lies below one that others may write to
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "PermitUserEnvironment": "no",
        "LogLevel": "VERBOSE",
        **(settings or {}),
    }
    # At this depth bash leaves the user's own start-up files alone: one that is cut off may leave a lock behind.
    sessions = {"SHLVL": "1", **(environment or {})}
    given["SetEnv"] = " ".join(f'"{name}={value}"' for name, value in sessions.items())
    config = folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in given.items()))
    log = folder / "sshd.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=stream, stdin=subprocess.DEVNULL)
    server = Sshd(folder, port, process)
    try:
        _wait(server, log)
        yield server
    finally:
        if process.poll() is None:
            server.thaw()
        server.cut()
        process.terminate()
        process.wait(10)


def _wait(server: Sshd, log: Path) -> None:
    ends = time.monotonic() + 10
    while True:
        if server.process.poll() is not None or time.monotonic() > ends:
            pytest.skip(f"sshd does not run here: {log.read_text()[-300:]}")
        try:
            with socket.create_connection(("127.0.0.1", server.port), 1):
                break
        except OSError:
            time.sleep(0.02)
