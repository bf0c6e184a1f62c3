"""Removes one container when the process that started it has ended.

Run as a script by ``container_claim.Claim``. Its standard input is a pipe that only the owner holds. The owner writes
``done`` when it has removed the container itself; an end without that word is the owner's death.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

_POLL = 0.25
_PATIENCE = 60.0
_ON_ITS_WAY = 2.0


def main() -> int:
    """Wait for the end of the owner that the one argument describes; 1 when the container could not be removed."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    # A service manager signals the whole group: the owner decides, and this process goes after it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if _owner_is_done(spec["parent"]):
        return 0
    import docker.errors

    ends = time.monotonic() + _PATIENCE
    while True:
        try:
            _remove(spec["name"], spec["grace"])
            Path(spec["lock_file"]).unlink(missing_ok=True)
            return 0
        except (docker.errors.DockerException, OSError):
            if time.monotonic() > ends:
                return 1
            time.sleep(1.0)


def _owner_is_done(parent: int) -> bool:
    pipe = sys.stdin.fileno()
    # The pipe can stay open in a fork of the owner: the owner's own end decides.
    while os.getppid() == parent:
        readable, _, _ = select.select([pipe], [], [], _POLL)
        if readable:
            return os.read(pipe, 16) == b"done\n"
    return False


def _remove(name: str, grace: int) -> None:
    import docker
    import docker.errors

    client = docker.from_env()
    ends = time.monotonic() + _ON_ITS_WAY
    while True:
        try:
            container = client.containers.get(name)
            break
        except docker.errors.NotFound:
            # The owner may have died while the engine was making it.
            if time.monotonic() > ends:
                return
            time.sleep(_POLL)
    try:
        container.stop(timeout=grace)
        container.remove(force=True, v=True)
    except docker.errors.NotFound:
        return


if __name__ == "__main__":
    sys.exit(main())
