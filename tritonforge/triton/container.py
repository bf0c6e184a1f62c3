"""A Triton in a Docker container, such as the vendor's image."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.container_claim import Claim, sweep
from tritonforge.triton.engine import connect, have_image, words
from tritonforge.triton.launch import Launch, server_arguments
from tritonforge.triton.ports import Ports, PortTaken

_MODELS: Final = "/models"
_INSIDE: Final = Ports(8000, 8001, 8002)
_ENDED: Final = ("exited", "dead", "removing")
_KILLED: Final = 137


@dataclass(frozen=True, slots=True)
class ContainerServer:
    """``image`` is pulled when absent; ``gpus`` passes all GPUs through; ``shm_size`` as Docker writes sizes.

    The engine (``docker_host``, else ``DOCKER_HOST``, else the usual socket) must be this machine's own.
    """

    image: str
    gpus: bool = False
    shm_size: str = "1g"
    docker_host: str | None = None
    program: str = "tritonserver"
    volumes: dict[str, str] = field(default_factory=dict)
    """Further folders of this machine, each with where it stands in the container; all read-only."""


class ContainerProcess:
    """A server in a container of this process's own."""

    def __init__(self, client: Any, container: Any, claim: Claim, log: Path) -> None:
        self._client = client
        self._container = container
        self._claim = claim
        self._stopped = False
        self._follow = threading.Thread(target=self._copy_log, args=(log,), daemon=True)
        self._follow.start()

    @property
    def pid(self) -> int | None:
        return None

    @property
    def backends(self) -> tuple[str, ...]:
        return ()

    def poll(self) -> int | None:
        import docker.errors

        if self._stopped:
            return 0
        try:
            self._container.reload()
        except docker.errors.NotFound:
            return _KILLED
        except (docker.errors.DockerException, OSError) as error:
            raise EnvironmentLacks("the Docker engine does not answer any more", found=words(error)) from None
        state = self._container.attrs["State"]
        if state["Status"] not in _ENDED:
            return None
        # The log is complete once its stream has ended.
        self._follow.join(5.0)
        return int(state["ExitCode"])

    def stop(self, grace: float) -> None:
        import docker.errors

        if self._stopped:
            return
        self._stopped = True
        if grace > 0:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._container.stop(timeout=max(1, int(grace)))
            self._follow.join(5.0)
        _discard(self._client, self._claim)
        self._client.close()

    def _copy_log(self, log: Path) -> None:
        # An engine that goes away ends the log; ``poll`` says so.
        with contextlib.suppress(Exception), log.open("ab", buffering=0) as stream:
            for chunk in self._container.logs(stream=True, follow=True):
                stream.write(chunk)


def start_container(server: ContainerServer, launch: Launch, ports: Ports, log: Path) -> ContainerProcess:
    """Start the container with the repository mounted read-only and its ports published on ``launch.host``.

    It ends with this process (see ``container_claim.py``); what earlier processes could not remove is removed first.

    Raises:
        EnvironmentLacks: the docker package or a Docker engine of this machine is absent, the image cannot be had, or
            it does not start.
        PortTaken: one of the ports cannot be published.
    """
    client = connect(server.docker_host)
    import docker.errors
    import docker.types

    log.parent.mkdir(parents=True, exist_ok=True)
    sweep(client)
    have_image(client, server.image)
    host = _address(launch.host)
    outside = {_INSIDE.http: ports.http, _INSIDE.grpc: ports.grpc, _INSIDE.metrics: ports.metrics}
    folders = {str(launch.repository.resolve()): _MODELS, **server.volumes}
    claim = Claim(server.docker_host, launch.exit_timeout)
    try:
        container = client.containers.create(
            server.image,
            [server.program, *server_arguments(launch, _INSIDE, repository=_MODELS, host="0.0.0.0")],  # noqa: S104
            name=claim.name,
            labels=claim.labels,
            # Mounts, not volumes: the engine would make a folder that it does not see, and split a name at its colons.
            mounts=[
                docker.types.Mount(target=place, source=str(Path(folder).resolve()), type="bind", read_only=True)
                for folder, place in folders.items()
            ],
            # Where SELinux confines containers the files would have to be relabelled; elsewhere this does nothing.
            security_opt=["label=disable"],
            ports={f"{inside}/tcp": (host, port) for inside, port in outside.items()},
            shm_size=server.shm_size,
            environment=dict(launch.env),
            device_requests=[docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if server.gpus else None,
        )
        container.start()
        return ContainerProcess(client, container, claim, log)
    except docker.errors.DockerException as error:
        _discard(client, claim)
        raise _explained(server, ports, words(error)) from None
    except BaseException as error:
        # Interrupted, or no answer: the engine may still be making it.
        claim.abandon()
        if isinstance(error, OSError):
            raise _explained(server, ports, words(error)) from None
        raise


def _discard(client: Any, claim: Claim) -> None:
    """Remove what has the claimed name, then let go of it; where that fails the warden tries again."""
    import docker.errors

    try:
        with contextlib.suppress(docker.errors.NotFound):
            client.api.remove_container(claim.name, force=True, v=True)
    except (docker.errors.DockerException, OSError):
        claim.abandon()
    else:
        claim.release()


def _explained(server: ContainerServer, ports: Ports, said: str) -> Exception:
    if "port is already allocated" in said or "address already in use" in said:
        for port in (ports.http, ports.grpc, ports.metrics):
            if re.search(rf":{port}\b", said):
                return PortTaken(port)
    if "bind source path does not exist" in said:
        return EnvironmentLacks(
            "the Docker engine does not see the repository",
            found=said,
            hint="it runs on another machine, or in another container than tritonforge: run both on one, or start the "
            "server yourself and name it: --server http://HOST:PORT",
        )
    hint = None
    if server.gpus and ("device driver" in said or "nvidia" in said.lower()):
        hint = "for GPUs in containers the engine needs the NVIDIA Container Toolkit"
    elif f'"{server.program}"' in said and "executable file not found" in said:
        hint = f"the image has no {server.program}: is it one of Triton?"
    return EnvironmentLacks(f"the image {server.image} does not run", found=said, hint=hint)


def _address(host: str) -> str:
    """The engine takes addresses only."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise EnvironmentLacks(f"the address {host} is not known", found=str(error)) from None
