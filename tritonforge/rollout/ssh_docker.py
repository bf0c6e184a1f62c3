"""The Docker engine of another machine, over SSH."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.ssh import SshHost

_ASK: Final = r"""
printf 'host=%s\n' "$DOCKER_HOST"
context=
if [ -z "$DOCKER_HOST" ] && command -v docker >/dev/null 2>&1; then
  context=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)
fi
printf 'host=%s\n' "$context"
for socket in /run/docker.sock /var/run/docker.sock "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/docker.sock" \
    "$HOME/.docker/run/docker.sock"; do
  [ -S "$socket" ] || continue
  if [ -r "$socket" ] && [ -w "$socket" ]; then printf 'open=%s\n' "$socket"; else printf 'shut=%s\n' "$socket"; fi
done
"""


@contextlib.contextmanager
def docker_host(host: SshHost) -> Iterator[str]:
    """The address of its engine as ``unix://…`` of this machine, for the docker SDK; good until the context ends.

    It is what DOCKER_HOST names there, else docker's current context, else the usual socket, else a rootless one.

    Raises:
        EnvironmentLacks: there is no engine, or this user may not use it; or the machine is not reached.
    """
    with host.tunnel(engine_endpoint(host), unix=True) as local:
        yield f"unix://{local}"


def engine_endpoint(host: SshHost) -> str:
    """Its engine as seen from there: a socket's path, or ``HOST:PORT``.

    Raises:
        EnvironmentLacks: there is none that a tunnel leads to.
    """
    lines = [line.partition("=") for line in host.run(["sh", "-c", _ASK], timeout=60).text.splitlines()]
    opens = [value for name, _, value in lines if name == "open"]
    for value in (value for name, _, value in lines if name == "host" and value):
        parts = urlsplit(value)
        if parts.scheme == "unix":
            if parts.path in ("/run/docker.sock", "/var/run/docker.sock") and parts.path not in opens:
                break  # docker's own default, whether or not it is there
            return parts.path
        if parts.scheme == "tcp" and parts.hostname and parts.port and parts.port != 2376:
            return f"{parts.hostname}:{parts.port}"
        raise EnvironmentLacks(
            f"the Docker engine that {host.address} itself uses cannot be reached through it",
            expected="a unix socket, or tcp:// without TLS",
            found=value,
            hint="unset DOCKER_HOST or choose another docker context there, or use a target of kind docker",
        )
    if opens:
        return opens[0]
    shut = [value for name, _, value in lines if name == "shut"]
    if shut:
        raise EnvironmentLacks(
            f"the user at {host.address} may not use the Docker engine there",
            found=f"{shut[0]} is not open to this user",
            hint="join the group docker there (sudo usermod -aG docker USER, then log in anew), or run it rootless",
        )
    raise EnvironmentLacks(
        f"there is no Docker engine at {host.address}",
        hint="install Docker there (on a Jetson: sudo apt-get install nvidia-container), start it, or set DOCKER_HOST",
    )
