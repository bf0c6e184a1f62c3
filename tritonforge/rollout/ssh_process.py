"""How ssh is started: its options, its environment, and a private folder for its sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonforge.errors import EnvironmentLacks

_LONGEST_FOLDER: Final = 60
"""A socket's path has 107 bytes, of which ssh takes some more for a temporary name."""


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What is said to ssh beside the user's own configuration. Times in seconds.

    A connection that is silent for ``alive_interval * alive_count`` is lost.
    """

    identity: Path | None = None
    config: Path | None = None
    known_hosts: Path | None = None
    connect_timeout: int = 15
    alive_interval: int = 5
    alive_count: int = 3

    def arguments(self) -> list[str]:
        """Them as ssh's. Unknown host keys are refused, whatever the configuration says; nothing is ever asked."""
        words = ["-F", str(self.config)] if self.config is not None else []
        if self.identity is not None:
            words += ["-i", str(self.identity), "-o", "IdentitiesOnly=yes"]
        if self.known_hosts is not None:
            words += ["-o", f'UserKnownHostsFile="{self.known_hosts}"', "-o", "GlobalKnownHostsFile=/dev/null"]
        settings = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": self.connect_timeout,
            "ServerAliveInterval": self.alive_interval,
            "ServerAliveCountMax": self.alive_count,
            "ControlPersist": "no",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
            "LogLevel": "INFO",
        }
        return words + [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def program() -> str:
    """The path of ssh.

    Raises:
        EnvironmentLacks: it is not installed.
    """
    found = shutil.which("ssh")
    if found is None:
        raise EnvironmentLacks(
            "the program ssh is not installed", hint="install OpenSSH's client: apt-get install openssh-client"
        )
    return found


def environment() -> dict[str, str]:
    """What ssh is started with."""
    # No window may ask for a password, and messages are told apart by their English words.
    return {**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


def private_folder() -> Path:
    """A new folder that only this user may enter, with room in its name for sockets."""
    root = Path(tempfile.gettempdir())
    if len(str(root)) > _LONGEST_FOLDER:
        root = Path("/tmp")  # noqa: S108 - mkdtemp makes it private
    _sweep(root)
    return Path(tempfile.mkdtemp(prefix=f"tritonforge-ssh-{os.getpid()}-", dir=root))


def _sweep(root: Path) -> None:
    """Delete the folders of this user's processes that were killed."""
    for left in root.glob("tritonforge-ssh-*-*"):
        owner = left.name.split("-")[2]
        with contextlib.suppress(OSError):
            if owner.isdigit() and not Path(f"/proc/{owner}").exists() and left.lstat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
