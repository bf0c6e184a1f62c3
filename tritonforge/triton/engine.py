"""The Docker engine of this machine: reach it, and have an image in it."""

from __future__ import annotations

import os
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.machine import vendor_image

_SOCKET: Final = Path("/var/run/docker.sock")


def connect(address: str | None = None) -> Any:
    """A client of the engine at ``address``, else at ``DOCKER_HOST``, else at its usual socket.

    ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` are respected.

    Raises:
        EnvironmentLacks: the docker package is absent, there is no engine, or it is on another machine.
    """
    try:
        import docker
        import docker.errors
    except ImportError:
        raise EnvironmentLacks(
            "the package docker is not installed", hint="pip install 'tritonforge[docker]'"
        ) from None
    address = address or os.environ.get("DOCKER_HOST")
    if not address and not _SOCKET.exists():
        raise EnvironmentLacks(
            "there is no Docker engine here: DOCKER_HOST is not set and there is no " + str(_SOCKET),
            hint="start Docker, set DOCKER_HOST, or leave out --container to use the embedded server",
        )
    if address:
        require_this_machine(address)
    try:
        client = docker.from_env(environment={**os.environ, "DOCKER_HOST": address} if address else os.environ)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        denied = "Permission denied" in str(error)
        raise EnvironmentLacks(
            f"the Docker engine at {address or _SOCKET} does not answer",
            found=str(error),
            hint="this user may not use it: join the group docker, or run it rootless" if denied else None,
        ) from None
    return client


def require_this_machine(address: str) -> None:
    """Refuse an engine elsewhere: it could not mount this machine's folders, and would publish ports over there.

    Raises:
        EnvironmentLacks: the address leads to another machine.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme in ("unix", "npipe", "http+unix") or not parts.scheme or address.startswith("/"):
        return
    if parts.scheme != "ssh" and _is_ours(parts.hostname or "127.0.0.1"):
        return
    raise EnvironmentLacks(
        "the Docker engine is on another machine: it cannot mount the repository, and its ports would be over there",
        expected="an engine of this machine (unix:///..., or tcp:// at one of its own addresses)",
        found=address,
        hint="run tritonforge there, or start the server there and name it: --server http://HOST:PORT",
    )


def _is_ours(host: str) -> bool:
    # An address is this machine's own when it can be bound.
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def have_image(client: Any, image: str, say: Callable[[str], None] = lambda text: None) -> None:
    """Pull ``image`` where the engine has it not, as ``docker run`` does: with the user's logins, from the registry
    that its name says, else from the engine's default.

    Raises:
        EnvironmentLacks: it is neither there nor to be pulled; in the engine's words.
    """
    import docker.errors
    import docker.utils

    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        pass
    except (docker.errors.DockerException, OSError) as error:
        raise _not_had(image, words(error)) from None
    else:
        return
    say(f"pulling {image} (NVIDIA's images are several GB)")
    repository, tag = docker.utils.parse_repository_tag(image)
    layers: dict[str, bool] = {}
    try:
        for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in event:
                raise _not_had(image, event["error"])
            if event.get("status") in ("Pulling fs layer", "Pull complete", "Already exists"):
                layers[event["id"]] = event["status"] != "Pulling fs layer"
                say(f"pulling {image}: {sum(layers.values())} of {len(layers)} layers")
        client.images.get(image)
    except (docker.errors.DockerException, OSError) as error:
        raise _not_had(image, words(error)) from None


def words(error: Exception) -> str:
    """What the engine said, without the client's wrapping."""
    return str(getattr(error, "explanation", None) or error)


def _not_had(image: str, found: str) -> EnvironmentLacks:
    return EnvironmentLacks(
        f"the image {image} is not in the Docker engine, and cannot be pulled",
        found=found,
        hint=f"check its name, and `docker login` for a private registry; NVIDIA's is {vendor_image()}",
    )
