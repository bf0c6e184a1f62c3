"""Releases go to containers of a real engine and back, under load, and no request fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import haproxy_image
from testbed.docker_site import Site, make
from tritonforge.rollout.targets.containers import TARGET, Names
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


@pytest.fixture(scope="session")
def haproxy(engine: Any, base: str) -> str:
    return haproxy_image.build(engine, base)


@pytest.fixture(scope="module")
def site(
    engine: Any, image: str, haproxy: str, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A target that serves its first release."""
    settings = {"kind": "docker", "image": image, "proxy": {"image": haproxy}}
    made = make(tmp_path_factory.mktemp("docker") / "w", runtime.root.parent, settings)
    try:
        made.release(1)
        made.deploy()
        yield made
    finally:
        made.remove(engine)


@pytest.fixture
def serving(site: Site) -> Site:
    """The target with its first release in it again, and nothing broken."""
    site.release(1, environment={})
    site.deploy()
    return site


def test_a_redeploy_and_a_rollback_lose_no_request(serving: Site, engine: Any) -> None:
    first = serving.workshop.current()
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        second = serving.release(2)
        planned = serving.deploy("--dry-run")
        done = serving.deploy()
        traffic.wait_for(50)
        undone = serving.deploy(command="rollback")
        traffic.wait_for(50)
    assert traffic.failures == []
    assert (done["outcome"], done["release"], done["previous"]) == ("deployed", second, first)
    assert (undone["outcome"], undone["release"], undone["previous"]) == ("deployed", first, second)
    # One file differs between the two: the model that was changed.
    assert planned["plan"]["files"] == 1
    assert planned["plan"]["bytes"] == (serving.workshop.folder / "say.py").stat().st_size
    print(f"{traffic.total} requests, the slowest {traffic.slowest:.2f} s")


BROKEN = {
    "load": (1, "this model is broken on purpose"),
    "answers": (1, "the newcomer is not what was released"),
    "crash": (1, "the new server ended"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_bad_newcomer_goes_and_the_old_one_serves(serving: Site, how: str) -> None:
    first = serving.workshop.current()
    code, says = BROKEN[how]
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        serving.release(3, environment={"BROKEN": how})
        answer = serving.said("deploy", "there")
        traffic.wait_for(50)
    assert answer.code == code, answer.err
    assert says in answer.err
    assert f"release {first[:12]} serves, as before" in answer.err
    if how != "crash":
        assert traffic.failures == []
    else:
        # A server that dies takes the requests with it that it is at work on: those cannot be asked for again by gRPC.
        assert len(traffic.failures) <= 2, traffic.failures
    assert serving.deploy("--dry-run")["previous"] == first


def test_the_proxy_takes_another_configuration_and_no_request_fails(serving: Site, engine: Any) -> None:
    proxy = engine.containers.get(serving.container("proxy"))
    image = serving.settings["proxy"]["image"]
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        serving.release(1, proxy={"image": image, "sequence_header": "x-sequence"})
        done = serving.deploy()
        traffic.wait_for(50)
        serving.release(1, proxy={"image": image})
        serving.deploy()
        traffic.wait_for(50)
    assert traffic.failures == []
    assert done["outcome"] == "deployed"
    proxy.reload()
    assert proxy.attrs["RestartCount"] == 0 and proxy.status == "running", "it is the same container as before"
    assert proxy.logs().count(b"Loading success") == 3


def test_whatever_was_removed_is_made_again_by_the_next_command(serving: Site, engine: Any) -> None:
    first = serving.workshop.current()
    for role in ("keeper", "proxy", "blue", "green"):
        for container in engine.containers.list(all=True, filters={"name": f"^{serving.container(role)}$"}):
            container.remove(force=True)
    done = serving.deploy()
    assert (done["outcome"], done["release"]) == ("deployed", first)
    with serving.traffic() as traffic:
        traffic.wait_for(50)
    assert traffic.failures == []


def test_a_removed_server_is_replaced_by_the_warm_one_and_then_started_again(serving: Site, engine: Any) -> None:
    first = serving.workshop.current()
    serving.release(2)
    slot = serving.deploy()["slot"]
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        engine.containers.get(serving.container(slot)).remove(force=True)
        traffic.wait_for(50)
        done = serving.deploy()
        traffic.wait_for(50)
    assert (done["outcome"], done["slot"], done["release"]) == ("deployed", slot, serving.workshop.current())
    assert first != done["release"]
    assert len(traffic.failures) <= 2, traffic.failures


def test_a_tag_that_moves_changes_nothing_until_a_deploy(serving: Site, engine: Any, image: str) -> None:
    tag = f"tritonforge-test/moved-{serving.instance}:1"
    engine.images.get(image).tag(tag)
    try:
        serving.release(1, image=tag)
        slot = serving.deploy()["slot"]
        container = engine.containers.get(serving.container(slot))
        identity = container.attrs["Image"]
        with serving.traffic() as traffic:
            moved = engine.images.build(fileobj=_dockerfile(image), tag=tag, rm=True)[0]
            assert moved.id != identity
            container.restart(timeout=3)
            container.reload()
            assert container.attrs["Image"] == identity, "what was started stays what it is"
            traffic.wait_for(20)
            done = serving.deploy()
        assert done["outcome"] == "deployed", "the new image is a difference"
        assert engine.containers.get(serving.container(done["slot"])).attrs["Image"] == moved.id
    finally:
        serving.release(1, image=image)
        serving.deploy()
        engine.images.remove(tag, force=True)


def _dockerfile(image: str) -> Any:
    import io

    return io.BytesIO(f"FROM {image}\nLABEL moved=yes\n".encode())


def test_servers_see_releases_but_no_secrets_and_may_change_nothing(serving: Site, engine: Any) -> None:
    slot = serving.deploy()["slot"]
    server = engine.containers.get(serving.container(slot))
    mounts = {item["Destination"]: item["RW"] for item in server.attrs["Mounts"]}
    assert mounts == {"/tritonforge": False}
    assert server.exec_run(["ls", "/tritonforge/proxy"]).output == b""
    assert server.attrs["HostConfig"]["CapDrop"] == ["ALL"]
    for binding in server.attrs["NetworkSettings"]["Ports"].values():
        assert [item["HostIp"] for item in binding] == ["127.0.0.1"]
    for role in ("keeper", "proxy"):
        settings = engine.containers.get(serving.container(role)).attrs["HostConfig"]
        assert settings["ReadonlyRootfs"], role
        assert settings["CapDrop"] == ["ALL"], role


def test_the_name_of_another_container_is_not_taken(
    engine: Any, image: str, haproxy: str, runtime: Runtime, tmp_path: Path
) -> None:
    settings = {"kind": "docker", "image": image, "proxy": {"image": haproxy}}
    site = make(tmp_path / "w", runtime.root.parent, settings)
    foreign = engine.containers.create(image, name=site.container("keeper"), labels={"whose": "another's"})
    try:
        site.release(1)
        answer = site.said("deploy", "there")
        assert answer.code == 1
        assert "is not of this target" in answer.err
        assert engine.containers.get(foreign.id).labels["whose"] == "another's"
    finally:
        foreign.remove(force=True)
        site.remove(engine)


def test_nothing_stays_after_a_target_is_removed(
    engine: Any, image: str, haproxy: str, runtime: Runtime, tmp_path: Path
) -> None:
    from tritonforge.rollout.targets.container_run import ContainerRun
    from tritonforge.rollout.targets.docker import DockerHost
    from tritonforge.rollout.targets.embedded import Public
    from tritonforge.rollout.targets.engines import Engine

    site = make(tmp_path / "w", runtime.root.parent, {})
    ports = site.settings["ports"]
    host = DockerHost(
        Engine(engine, "of a test"),
        Names(site.instance),
        lambda: ContainerRun(image),
        Public("127.0.0.1", **ports),
        proxy_image=haproxy,
    )
    try:
        host.prepare()
        assert host.place.call("read")["watching"]
        host.remove()
        ours = {"label": f"{TARGET}={site.instance}"}
        assert engine.containers.list(all=True, filters=ours) == []
        assert engine.volumes.list(filters=ours) == []
        assert engine.networks.list(filters=ours) == []
    finally:
        site.remove(engine)
