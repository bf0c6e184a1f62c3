"""Releases go to the services of compose.yaml and back, under load, and no request fails."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import haproxy_image, prometheus_image
from testbed.compose_stack import COMPOSE_FILE, Stack, compose_program
from testbed.docker_site import Site, make
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Compose v2 on PATH, as its package would have it there."""
    words = compose_program()
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "docker-compose"
    script.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield words


@pytest.fixture(scope="module")
def settings(engine: Any, image: str, base: str) -> dict[str, Any]:
    return {"kind": "compose", "image": image, "proxy": {"image": haproxy_image.build(engine, base)}}


@pytest.fixture(scope="module")
def site(
    engine: Any,
    base: str,
    settings: dict[str, Any],
    plugin: list[str],
    runtime: Runtime,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    made = make(tmp_path_factory.mktemp("compose") / "w", runtime.root.parent, settings)
    stack = Stack(plugin, f"tritonforge-{made.instance}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_IMAGE", prometheus_image.build(engine, base))
        patch.setenv("PROMETHEUS_PORT", "0")
        try:
            made.release(1)
            made.deploy()
            yield made
        finally:
            stack.run("--profile", "rollout", "down", "-v", "-t", "2", check=False)


def test_a_redeploy_and_a_rollback_lose_no_request(site: Site, engine: Any) -> None:
    first = site.workshop.current()
    with site.traffic() as traffic:
        traffic.wait_for(50)
        second = site.release(2)
        planned = site.deploy("--dry-run")
        done = site.deploy()
        traffic.wait_for(50)
        undone = site.deploy(command="rollback")
        traffic.wait_for(50)
    assert traffic.failures == []
    assert planned["plan"]["files"] == 1
    assert (done["release"], undone["release"]) == (second, first)
    print(f"{traffic.total} requests, the slowest {traffic.slowest:.2f} s")


def test_it_is_the_stack_of_the_file_with_all_its_services(site: Site, engine: Any) -> None:
    project = f"tritonforge-{site.instance}"
    label = {"label": f"com.docker.compose.project={project}"}
    running = {item.labels["com.docker.compose.service"]: item for item in engine.containers.list(filters=label)}
    assert set(running) == {"blue", "green", "haproxy", "keeper", "prometheus"}
    for name, container in running.items():
        assert container.attrs["HostConfig"]["ReadonlyRootfs"], name
    mounts = {item["Destination"]: item["RW"] for item in running["blue"].attrs["Mounts"]}
    assert mounts == {"/tritonforge": False}
    assert running["blue"].exec_run(["ls", "/tritonforge/proxy"]).output == b""


def test_a_bad_newcomer_goes_and_the_old_one_serves(site: Site) -> None:
    first = site.deploy("--dry-run")["previous"]
    with site.traffic() as traffic:
        traffic.wait_for(50)
        site.release(3, environment={"BROKEN": "load"})
        answer = site.said("deploy", "there")
        traffic.wait_for(50)
    site.release(1, environment={})
    assert answer.code == 1, answer.err
    assert "this model is broken on purpose" in answer.err
    assert f"release {first[:12]} serves, as before" in answer.err
    assert traffic.failures == []


def test_a_file_without_the_services_is_refused(
    settings: dict[str, Any], runtime: Runtime, engine: Any, tmp_path: Path
) -> None:
    site = make(tmp_path / "w", runtime.root.parent, {**settings, "file": "other.yaml"})
    site.release(1)
    (site.workshop.folder / "other.yaml").write_text(
        "services: {blue: {image: x}, green: {image: x}, web: {image: x}}\n"
    )
    answer = site.said("deploy", "there")
    assert answer.code == 1
    assert "the compose file lacks haproxy, keeper" in answer.err
    (site.workshop.folder / "other.yaml").unlink()
    answer = site.said("deploy", "there")
    assert answer.code == 3
    assert "there is no compose file" in answer.err
    assert COMPOSE_FILE.is_file()


def test_one_slot_is_changed_in_place(
    engine: Any, settings: dict[str, Any], site: Site, plugin: list[str], runtime: Runtime, tmp_path: Path
) -> None:
    single = make(tmp_path / "w", runtime.root.parent, {**settings, "strategy": "one-slot"})
    stack = Stack(plugin, f"tritonforge-{single.instance}")
    try:
        single.release(1)
        single.deploy()
        with single.traffic() as traffic:
            traffic.wait_for(50)
            second = single.release(2)
            done = single.deploy()
            traffic.wait_for(50)
        assert traffic.failures == []
        assert done["release"] == second
    finally:
        stack.run("--profile", "rollout", "down", "-v", "-t", "2", check=False)
