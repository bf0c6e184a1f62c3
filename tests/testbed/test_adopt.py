"""A Triton that ran before tritonforge came becomes the first release of a target, and is never restarted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testbed import haproxy_image
from testbed.docker_site import Site, make
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
NAME = "tritonforge-test-foreign"


@pytest.fixture
def site(engine: Any, image: str, base: str, runtime: Runtime, tmp_path: Path) -> Iterator[Site]:
    settings = {"kind": "docker", "image": image, "proxy": {"image": haproxy_image.build(engine, base)}}
    made = make(tmp_path / "w", runtime.root.parent, settings)
    try:
        yield made
    finally:
        made.remove(engine)


@pytest.fixture
def foreign(engine: Any, image: str, site: Site, tmp_path: Path) -> Iterator[Any]:
    """A container that somebody started, on a repository of their own; it adds 1, as the site's first release would."""
    site.release(1)
    shutil.copytree(site.workshop.folder / "build" / "local" / "current" / "models", tmp_path / "models")
    container = engine.containers.run(
        image,
        ["tritonserver", "--model-repository=/models"],
        name=NAME,
        detach=True,
        volumes={str(tmp_path / "models"): {"bind": "/models", "mode": "rw"}},
        ports={f"{port}/tcp": ("127.0.0.1", None) for port in (8000, 8001, 8002)},
    )
    container.reload()
    url = f"http://127.0.0.1:{container.ports['8000/tcp'][0]['HostPort']}/v2/health/ready"
    ends = time.monotonic() + 60
    while not is_ready(url):
        assert time.monotonic() < ends, container.logs().decode()[-500:]
        time.sleep(0.2)
    yield container
    container.remove(force=True)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def started(container: Any) -> str:
    container.reload()
    return str(container.attrs["State"]["StartedAt"])


def test_it_serves_behind_the_proxy_and_hands_over_without_a_failed_request(site: Site, foreign: Any) -> None:
    began = started(foreign)
    first = site.deploy("--adopt", NAME)["release"]
    status = site.deploy(command="status")
    assert (status["release"], status["ready"], status["models"]) == (first, 2, 2)
    assert "adopted" in status["slots"][0]["words"]
    assert site.deploy(command="diff")["drift"] == []
    with site.traffic() as traffic:
        traffic.wait_for(50)
        second = site.release(2)
        assert site.deploy()["release"] == second
        traffic.wait_for(50)
        assert site.deploy(command="rollback")["release"] == first
        traffic.wait_for(50)
        assert site.deploy()["release"] == second
        third = site.release(3)
        assert site.deploy()["release"] == third
        traffic.wait_for(50)
    assert traffic.failures == []
    assert started(foreign) == began
    assert [event["what"] for event in site.deploy(command="history")["history"]] == [
        "adopt",
        "deploy",
        "rollback",
        "deploy",
        "deploy",
    ]


def test_what_cannot_be_adopted_is_refused(site: Site, foreign: Any) -> None:
    said = site.said("deploy", "there", "--adopt", "nobody")
    assert said.code == 2
    assert "there is no running container 'nobody'" in said.err
    site.deploy()
    said = site.said("deploy", "there", "--adopt", NAME)
    assert said.code == 2
    assert "already" in said.err
