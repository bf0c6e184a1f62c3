"""No container outlives the process that started it.

Two things see to that. A warden (``container_warden.py``) removes the container as soon as its owner has ended, however
it ended. And the owner and its warden hold a lock whose file the container's label names: where both were killed, or
the machine lost power, the lock is free, and the next start of any container removes what is left. A container whose
lock file is not to be seen here belongs to another user or machine, and is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.store import default_home
from tritonforge.durable import disk_errors

LABEL: Final = "tritonforge.lock"
_A_WHILE: Final = 10.0
_WARDEN: Final = Path(__file__).with_name("container_warden.py")


class Claim:
    """A container's name that this process answers for; claim it before the container is made."""

    def __init__(self, docker_host: str | None, grace: float) -> None:
        self.name = f"tritonforge-{secrets.token_hex(6)}"
        self.file = default_home() / "containers" / f"{self.name}.lock"
        with disk_errors("cannot note the container", self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, f"process {os.getpid()}\n".encode())
        spec = {"name": self.name, "parent": os.getpid(), "grace": int(grace), "lock_file": str(self.file)}
        self._warden = subprocess.Popen(
            # -P: this folder's modules are not top-level ones.
            [sys.executable, "-P", str(_WARDEN), json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **({"DOCKER_HOST": docker_host} if docker_host else {})},
            start_new_session=True,
            pass_fds=(self._lock,),
        )

    @property
    def labels(self) -> dict[str, str]:
        """What the container is to carry."""
        return {LABEL: str(self.file), "tritonforge.process": str(os.getpid())}

    def release(self) -> None:
        """The container is gone: the warden may go, and the lock with it. Does nothing the second time."""
        if self._close(b"done\n"):
            self._warden.wait()
            self.file.unlink(missing_ok=True)
            os.close(self._lock)

    def abandon(self) -> None:
        """The container may be there, or on its way: the warden removes it, and is given a while for that."""
        if self._close(b""):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._warden.wait(_A_WHILE)
            os.close(self._lock)

    def _close(self, word: bytes) -> bool:
        pipe = self._warden.stdin
        if pipe is None or pipe.closed:
            return False
        with contextlib.suppress(OSError):
            pipe.write(word)
        with contextlib.suppress(OSError):
            pipe.close()
        return True


def sweep(client: Any) -> list[str]:
    """Remove the containers whose owner and warden are gone; their names."""
    import docker.errors

    gone: list[str] = []
    try:
        # Sparse: another process may remove one of them between the list and a closer look.
        labelled = client.containers.list(all=True, filters={"label": LABEL}, sparse=True)
    except (OSError, docker.errors.DockerException):
        return gone  # whoever starts a container next is told by that
    for container in labelled:
        file = Path(container.attrs["Labels"][LABEL])
        try:
            lock = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            container.remove(force=True, v=True)
            file.unlink(missing_ok=True)
            gone.append(file.stem)
        except (OSError, docker.errors.DockerException):
            continue
        finally:
            os.close(lock)
    return gone
