"""Releases go to a "Jetson": a board's files behind a real sshd, with an engine of its own, under load."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli.commands import PROGRAM
from rollout.jetson.laid_out import lay_out

from testbed import haproxy_image
from testbed.docker_site import QUICK, Site, make
from testbed.sshd import Sshd, serve
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


@dataclass
class Edge:
    """A target on the board, and the sshd before it."""

    site: Site
    sshd: Sshd
    root: Path


@pytest.fixture(scope="module")
def sshd(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A machine whose engine is the test bed's."""
    environment = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "PATH": os.environ["PATH"]}
    with serve(tmp_path_factory.mktemp("sshd") / "s", environment=environment) as server:
        yield server


@pytest.fixture(scope="module")
def settings(
    engine: Any, image: str, base: str, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A target on an Orin NX with JetPack 6.2."""
    options = sshd.client
    return {
        "kind": "jetson",
        "address": sshd.address,
        "ssh": {
            "identity": str(options.identity),
            "config": str(options.config),
            "known_hosts": str(options.known_hosts),
        },
        "board_root": str(lay_out("orin-nx-jp6.2", tmp_path_factory.mktemp("board") / "root", real=("docker",))),
        "image": image,
        "gpus": _takes_gpus(engine, image),
        "proxy": {"image": haproxy_image.build(engine, base)},
    }


def _takes_gpus(engine: Any, image: str) -> bool:
    """Whether the engine takes `--runtime nvidia --gpus all`, as a board's does."""
    import docker.errors
    import docker.types

    every = docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])
    container = engine.containers.create(image, ["true"], runtime="nvidia", device_requests=[every])
    try:
        container.start()
    except docker.errors.APIError:
        return False
    finally:
        container.remove(force=True)
    return True


@pytest.fixture(scope="module")
def edge(
    engine: Any, settings: dict[str, Any], sshd: Sshd, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """It serves its first release in two slots."""
    site = make(tmp_path_factory.mktemp("jetson") / "w", runtime.root.parent, settings)
    try:
        site.release(1)
        site.deploy()
        yield Edge(site, sshd, Path(settings["board_root"]))
    finally:
        site.remove(engine)


def test_a_redeploy_over_ssh_loses_no_request(edge: Edge, engine: Any) -> None:
    first = edge.site.workshop.current()
    with edge.site.traffic() as traffic:
        traffic.wait_for(50)
        second = edge.site.release(2)
        done = edge.site.deploy()
        undone = edge.site.deploy(command="rollback")
        traffic.wait_for(50)
    assert traffic.failures == []
    assert (done["release"], undone["release"]) == (second, first)
    server = engine.containers.get(edge.site.container(undone["slot"])).attrs["HostConfig"]
    if edge.site.settings["gpus"]:
        assert server["Runtime"] == "nvidia"
        assert server["DeviceRequests"][0]["Count"] == -1
    print(f"{traffic.total} requests over {done['seconds'] + undone['seconds']:.1f} s, none failed")


def test_the_journal_says_what_the_board_was_like(edge: Edge, engine: Any) -> None:
    begin = next(event for event in journal(edge, engine) if event["event"] == "begin")
    assert begin["machine"]["module"].startswith("NVIDIA Jetson Orin NX")
    assert begin["machine"]["jetpack"].startswith("6.2")
    assert set(begin["machine"]) == {"module", "l4t", "jetpack", "power_mode", "clocks"}


def test_a_cut_in_the_middle_is_undone_at_once_where_the_board_is_reached_again(edge: Edge, engine: Any) -> None:
    first = edge.site.deploy()["release"]
    with edge.site.traffic() as traffic:
        traffic.wait_for(50)
        edge.site.release(3, rollout=slow())
        command = begun(edge, engine, step="watch-25")
        edge.sshd.cut()
        _, said = command.communicate(timeout=120)
        traffic.wait_for(50)
    assert command.returncode == 3, said
    assert f"release {first[:12]} serves, as before" in said
    assert traffic.failures == []


def test_while_the_board_cannot_be_reached_it_goes_back_by_itself_and_the_next_command_says_so(
    edge: Edge, engine: Any
) -> None:
    edge.site.release(1, rollout=QUICK)
    first = edge.site.deploy()["release"]
    with edge.site.traffic() as traffic:
        traffic.wait_for(50)
        edge.site.release(4, rollout=slow())
        command = begun(edge, engine, step="watch-25")
        edge.sshd.freeze()
        try:
            _, said = command.communicate(timeout=180)
            assert command.returncode == 3, said
            assert "goes back by itself" in said
            ends = time.monotonic() + 60
            while not any(event["event"] == "reverted" for event in journal(edge, engine)[-3:]):
                assert time.monotonic() < ends, journal(edge, engine)[-3:]
                time.sleep(0.5)
        finally:
            edge.sshd.thaw()
        traffic.wait_for(50)
        edge.site.answers -= {4.0}
        traffic.wait_for(50)
        edge.site.release(1, rollout=QUICK)
        after = edge.site.deploy()
        traffic.wait_for(50)
    assert after["release"] == first
    assert any("was reverted by the target's dead-man timer" in note for note in after["notes"]), after
    assert traffic.failures == []


def test_what_has_no_room_is_refused_before_anything_changes(
    engine: Any, settings: dict[str, Any], runtime: Runtime, tmp_path: Path
) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    memory = root / "proc" / "meminfo"
    memory.write_text("MemTotal:        7802232 kB\nMemAvailable:    2600000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
    site = make(tmp_path / "w", runtime.root.parent, {**settings, "board_root": str(root)})
    try:
        site.release(1)
        answer = site.said("deploy", "there")
        assert answer.code == 1, answer.err
        assert "no room for two servers" in answer.err
        assert "`strategy: one-slot`" in answer.err
        assert not [item for item in engine.volumes.list() if site.instance in item.name]
        assert engine.containers.list(all=True, filters={"name": site.instance}) == []
    finally:
        site.remove(engine)


REFUSED = {
    "orin-nano-jp5.1.1": ({"image": None}, "NVIDIA publishes no Triton image"),
    "agx-orin-jp7.2": ({"image": "nvcr.io/nvidia/tritonserver:26.02-py3-igpu"}, "does not use the GPU"),
}


@pytest.mark.parametrize("board", REFUSED)
def test_what_the_jetpack_cannot_run_is_refused_with_what_can(
    engine: Any, settings: dict[str, Any], runtime: Runtime, tmp_path: Path, board: str
) -> None:
    more, says = REFUSED[board]
    root = lay_out(board, tmp_path / "board")
    site = make(tmp_path / "w", runtime.root.parent, {**settings, "gpus": None, "board_root": str(root), **more})
    try:
        site.release(1)
        answer = site.said("deploy", "there")
        assert answer.code == 1, answer.err
        assert says in answer.err
        assert engine.containers.list(all=True, filters={"name": site.instance}) == []
    finally:
        site.remove(engine)


@pytest.mark.parametrize("strategy", ["one-slot"])
def test_one_slot_is_changed_in_place_over_ssh(
    engine: Any, settings: dict[str, Any], runtime: Runtime, tmp_path: Path, strategy: str
) -> None:
    site = make(tmp_path / "w", runtime.root.parent, {**settings, "strategy": strategy})
    try:
        first = site.release(1)
        site.deploy()
        with site.traffic() as traffic:
            traffic.wait_for(50)
            second = site.release(2)
            done = site.deploy()
            traffic.wait_for(50)
            undone = site.deploy(command="rollback")
            traffic.wait_for(50)
        assert traffic.failures == []
        assert (done["release"], undone["release"]) == (second, first)
        assert [item.name for item in engine.containers.list(filters={"name": site.instance})].count("green") == 0
        print(f"{traffic.total} requests, the slowest {traffic.slowest:.2f} s")
    finally:
        site.remove(engine)


def slow() -> dict[str, Any]:
    """A rollout with time to pull the cable in the middle, on a target that waits 15 s for a word."""
    return {**QUICK, "analysis": {**QUICK["analysis"], "hold_s": 60.0}, "deadman_s": 15.0}


def journal(edge: Edge, engine: Any) -> list[dict[str, Any]]:
    """The target's journal, past ssh."""
    keeper = engine.containers.get(edge.site.container("keeper"))
    said = keeper.exec_run(["cat", "/tritonforge/journal.jsonl"])
    # Not while a command replaces it.
    return [json.loads(line) for line in said.output.decode().splitlines()] if said.exit_code == 0 else []


def begun(edge: Edge, engine: Any, step: str) -> subprocess.Popen[str]:
    """A deploy in the background, once it has come to ``step``."""
    before = len(journal(edge, engine))
    command = subprocess.Popen(
        [str(PROGRAM), "deploy", "there"],
        cwd=edge.site.workshop.folder,
        env=edge.site.workshop.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends = time.monotonic() + 120
    while not any(event.get("step") == step for event in journal(edge, engine)[before:]):
        assert command.poll() is None, command.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.3)
    return command
