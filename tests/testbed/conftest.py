"""A real Docker engine (``DOCKER_HOST``), with an image like the vendor's in it."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.image import BASES, IMAGE, base_image, build
from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.container_claim import LABEL
from tritonforge.triton.embedded import Runtime, install


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine. Ports that it publishes must be reachable from here."""
    docker = pytest.importorskip("docker")
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("DOCKER_HOST is not set: there is no Docker engine to test with")
    try:
        client = docker.from_env()
        client.ping()
    except Exception as error:
        pytest.skip(f"the Docker engine at {os.environ['DOCKER_HOST']} does not answer: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base(engine: Any) -> str:
    """An image of a plain Linux that the engine has."""
    found = base_image(engine)
    if found is None:
        pytest.skip(f"the Docker engine has none of {', '.join(BASES)} to build on")
    return found


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The embedded Triton; installed on first use."""
    try:
        return install()
    except EnvironmentLacks as error:
        pytest.skip(f"the embedded Triton, of which the image is made, cannot be had: {error}")


@pytest.fixture(scope="session")
def image(engine: Any, base: str, runtime: Runtime) -> str:
    """The name of an image that looks like the vendor's, tried once: its programs run, its ports are reached."""
    build(engine, runtime, base)
    words = ["sh", "-c", "python3 -c 'import numpy, onnxruntime' && exec python3 -m http.server"]
    container = engine.containers.run(IMAGE, words, detach=True, ports={"8000/tcp": ("127.0.0.1", None)})
    try:
        ends = time.monotonic() + 20
        while not _answers(container):
            if container.status == "exited":
                pytest.skip(f"what was put on {base} does not run there: {container.logs().decode()[-300:]}")
            if time.monotonic() > ends:
                pytest.skip("the ports that the Docker engine publishes are not reached from here")
            time.sleep(0.1)
    finally:
        container.remove(force=True)
    return IMAGE


def _answers(container: Any) -> bool:
    container.reload()
    published = container.ports.get("8000/tcp")
    if not published:
        return False
    probe = http.client.HTTPConnection("127.0.0.1", int(published[0]["HostPort"]), timeout=2)
    try:
        probe.request("GET", "/")
        return probe.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        probe.close()


Ours = Callable[[], set[str]]


@pytest.fixture
def ours(engine: Any) -> Iterator[Ours]:
    """The names of the containers that tritonforge made since the test began; what it leaves is removed after it."""

    def names() -> set[str]:
        return {item.name for item in engine.containers.list(all=True, filters={"label": LABEL})} - before

    before: set[str] = set()
    before = names()
    yield names
    for name in names():
        engine.api.remove_container(name, force=True, v=True)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that a program here listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty model repository."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
