"""A Docker engine of a target: this machine's, or another's over SSH."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.rollout.points import lost
from tritonforge.rollout.ssh import SshHost
from tritonforge.rollout.ssh_docker import docker_host
from tritonforge.rollout.ssh_process import SshOptions
from tritonforge.triton.engine import connect, require_this_machine, words

_TIMEOUT: Final = 300
"""Seconds that the engine may take for one answer, such as to the last byte of a delivery."""


@dataclass(slots=True)
class Engine:
    """An engine that answers. ``title`` is what people call it; ``ssh`` leads to its machine, None for this one."""

    client: Any
    title: str
    ssh: SshHost | None = None

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Turn the engine's errors into one clear error; a connection that was lost before is made anew first.

        Raises:
            EnvironmentLacks: it does not answer, refuses, or its disk is full.
        """
        import docker.errors
        import requests

        if self.ssh is not None:
            self.ssh.connect()
        try:
            yield
        except docker.errors.APIError as error:
            raise self._refused(words(error)) from None
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise lost(f"the Docker engine {self.title}: {error}") from None

    def _refused(self, said: str) -> EnvironmentLacks:
        if "no space left on device" in said or "disk quota exceeded" in said:
            return EnvironmentLacks(
                f"the disk of the Docker engine {self.title} is full",
                found=said,
                hint="free some space there (`docker system df` shows what takes it), then run it again: it goes on",
            )
        return EnvironmentLacks(f"the Docker engine {self.title} refuses", found=said)

    @contextmanager
    def endpoint(self, host: str, port: int) -> Iterator[str]:
        """``HOST:PORT`` of this machine that leads to a port that the engine publishes."""
        if self.ssh is None:
            yield f"{host}:{port}"
            return
        with self.ssh.tunnel(f"{host}:{port}") as local:
            yield local


@contextmanager
def open_engine(address: str | None, options: SshOptions | None = None) -> Iterator[Engine]:
    """The engine at ``address``, else at DOCKER_HOST, else this machine's: ``unix://``, ``tcp://`` here, ``ssh://``.

    Raises:
        EnvironmentLacks: there is none, or its ports would be published where they are not reached from here.
    """
    address = address or os.environ.get("DOCKER_HOST") or None
    if address is not None and address.startswith("ssh://"):
        with SshHost(_ssh_address(address), options or SshOptions()) as machine, open_engine_of(machine) as engine:
            yield engine
        return
    if address is not None:
        try:
            require_this_machine(address)
        except EnvironmentLacks:
            raise EnvironmentLacks(
                "the private ports of a Docker engine elsewhere are not reached from here",
                expected="unix:///…, tcp:// at an address of this machine, or ssh://user@host",
                found=address,
                hint=f"reach it over SSH: `host: ssh://USER@{urlsplit(address).hostname}`; or run tritonforge there",
            ) from None
    client = connect(address)
    client.api.timeout = _TIMEOUT
    try:
        yield Engine(client, f"at {address}" if address else "of this machine")
    finally:
        client.close()


@contextmanager
def open_engine_of(machine: SshHost) -> Iterator[Engine]:
    """The engine of a machine that is reached over SSH."""
    with docker_host(machine) as local:
        client = connect(local)
        client.api.timeout = _TIMEOUT
        try:
            yield Engine(client, f"of {machine.address}", machine)
        finally:
            client.close()


def _ssh_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.path.strip("/") or parts.query or parts.password:
        raise UsageError(
            "the address of an engine over SSH ends after its host",
            expected="ssh://user@host or ssh://user@host:port",
            hint="which socket the engine has is asked from the machine itself (DOCKER_HOST there)",
        )
    return parts.netloc
