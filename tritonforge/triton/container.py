"""A Triton in a Docker container, such as the vendor's image."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.launch import Launch, server_arguments
from tritonforge.triton.ports import Ports

_SOCKET: Final = Path("/var/run/docker.sock")
_MODELS: Final = "/models"
_INSIDE: Final = Ports(8000, 8001, 8002)


@dataclass(frozen=True, slots=True)
class ContainerServer:
    """``image`` is pulled when absent; ``gpus`` passes all GPUs through; ``shm_size`` as Docker writes sizes."""

    image: str
    gpus: bool = False
    shm_size: str = "1g"
    docker_host: str | None = None
    program: str = "tritonserver"
    volumes: dict[str, str] = field(default_factory=dict)
    """Further folders of this machine, each with where it stands in the container; all read-only."""


class ContainerProcess:
    """A server in a container of this process's own."""

    def __init__(self, container: Any, log: Path) -> None:
        self._container = container
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
            return 0
        state = self._container.attrs["State"]
        if state["Status"] in ("created", "running", "restarting"):
            return None
        # The log is complete once its stream has ended.
        self._follow.join(5.0)
        return int(state["ExitCode"])

    def stop(self, grace: float) -> None:
        import docker.errors

        if self._stopped:
            return
        self._stopped = True
        with contextlib.suppress(docker.errors.APIError):
            self._container.stop(timeout=max(0, int(grace)))
        self._follow.join(5.0)
        with contextlib.suppress(docker.errors.APIError):
            self._container.remove(force=True, v=True)

    def _copy_log(self, log: Path) -> None:
        with contextlib.suppress(Exception), log.open("ab", buffering=0) as stream:
            for chunk in self._container.logs(stream=True, follow=True):
                stream.write(chunk)


def start_container(server: ContainerServer, launch: Launch, ports: Ports, log: Path) -> ContainerProcess:
    """Start the container with the repository mounted read-only and its ports published on ``launch.host``.

    Raises:
        EnvironmentLacks: the docker package or a Docker engine is absent, the image cannot be had, or it does not
            start.
    """
    client = _engine(server)
    import docker.errors
    import docker.types

    log.parent.mkdir(parents=True, exist_ok=True)
    words = [server.program, *server_arguments(launch, _INSIDE, repository=_MODELS, host="0.0.0.0")]  # noqa: S104
    volumes = {str(launch.repository.resolve()): {"bind": _MODELS, "mode": "ro"}}
    volumes.update({name: {"bind": place, "mode": "ro"} for name, place in server.volumes.items()})
    gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if server.gpus else None
    try:
        _pull_if_absent(client, server.image)
        container = client.containers.run(
            server.image,
            words,
            detach=True,
            volumes=volumes,
            ports={
                f"{inside}/tcp": (launch.host, outside)
                for inside, outside in (
                    (_INSIDE.http, ports.http),
                    (_INSIDE.grpc, ports.grpc),
                    (_INSIDE.metrics, ports.metrics),
                )
            },
            shm_size=server.shm_size,
            environment=dict(launch.env),
            device_requests=gpus,
            labels={"tritonforge.process": str(os.getpid())},
        )
    except docker.errors.DockerException as error:
        raise EnvironmentLacks(
            f"the image {server.image} does not run", found=str(getattr(error, "explanation", None) or error)
        ) from None
    return ContainerProcess(container, log)


def _engine(server: ContainerServer) -> Any:
    try:
        import docker
        import docker.errors
    except ImportError:
        raise EnvironmentLacks(
            "the package docker is not installed", hint="pip install 'tritonforge[docker]'"
        ) from None
    address = server.docker_host or os.environ.get("DOCKER_HOST")
    if not address and not _SOCKET.exists():
        raise EnvironmentLacks(
            "there is no Docker engine here: DOCKER_HOST is not set and there is no " + str(_SOCKET),
            hint="start Docker, set DOCKER_HOST, or leave out --container to use the embedded server",
        )
    try:
        client = docker.DockerClient(base_url=address) if address else docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise EnvironmentLacks(f"the Docker engine at {address or _SOCKET} does not answer", found=str(error)) from None
    return client


def _pull_if_absent(client: Any, image: str) -> None:
    import docker.errors

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        client.images.pull(image)
