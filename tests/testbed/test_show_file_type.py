"""The demo's repository through blue and green twice, under load; a broken release goes back by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.commands import Workshop
from traffic import Traffic

from testbed import haproxy_image
from testbed.docker_site import free_ports
from tritonforge.rollout.targets.containers import TARGET
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
INSTANCE = "show-file-type"
ROOT = Path(__file__).parents[2]
REQUESTS = 10_000
BROKEN = '        raise RuntimeError("this release is broken on purpose")\n'


@pytest.fixture
def repository(engine: Any, image: str, base: str, runtime: Runtime, tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop.make(tmp_path, runtime.root.parent)
    made.folder.rmdir()
    shutil.copytree(
        ROOT / "repositories" / "file-type", made.folder, ignore=shutil.ignore_patterns("build", "__pycache__")
    )
    http, grpc, metrics = free_ports(3)
    target = {
        "name": INSTANCE,
        "image": image,
        "ports": {"http": http, "grpc": grpc, "metrics": metrics},
        "proxy": {"image": haproxy_image.build(engine, base)},
        "gates": [],
        "rollout": {"analysis": {"hold_s": 2.0, "latency_ratio_max": None}, "drain_s": 10.0, "ready_s": 240.0},
    }
    (made.folder / "test.yaml").write_text(json.dumps({"targets": {"local-docker": target}}))
    yield made
    ours = {"label": f"{TARGET}={INSTANCE}"}
    for container in engine.containers.list(all=True, filters=ours, ignore_removed=True):
        container.remove(force=True)
    for network in engine.networks.list(filters=ours):
        network.remove()
    for volume in engine.volumes.list(filters=ours):
        volume.remove(force=True)


def ask(made: Workshop, *words: str, code: int = 0) -> dict[str, Any]:
    return made.json(*words, "--overlay", "test.yaml", code=code, timeout=600)


def test_two_releases_and_a_broken_one_under_load(repository: Workshop) -> None:
    made = repository
    ports = json.loads((made.folder / "test.yaml").read_text())["targets"]["local-docker"]["ports"]
    label = made.folder / "label" / "model.py"
    source = label.read_text()

    def release(text: str) -> str:
        label.write_text(text)
        return str(ask(made, "build")["platforms"][0]["release"])

    first = release(source)
    assert ask(made, "deploy", "local-docker")["release"] == first
    content = np.array([[b"<!doctype html><html><body><p>What kind of file is this?</p></body></html>"]], dtype=object)

    def right(outputs: dict[str, Any]) -> None:
        said = np.ravel(outputs["LABEL"])[0]
        assert said in ("html", b"html"), said

    with Traffic(
        f"127.0.0.1:{ports['http']}",
        f"127.0.0.1:{ports['grpc']}",
        "file-type",
        {"CONTENT": content},
        check=right,
        threads=2,
        pause=0.0,
        timeout=60.0,
    ) as traffic:
        traffic.wait_for(200)
        second = release(source + "# the second\n")
        assert ask(made, "deploy", "local-docker")["release"] == second
        third = release(source + "# the third\n")
        assert ask(made, "deploy", "local-docker")["release"] == third
        marker = "    def initialize(self, args):\n"
        assert marker in source
        broken = release(source.replace(marker, marker + BROKEN))
        said = ask(made, "deploy", "local-docker", code=1)
        assert "serves, as before" in said["message"]
        status = ask(made, "status", "local-docker")
        assert status["release"] == third != broken
        traffic.wait_for(max(0, REQUESTS - traffic.total), seconds=600)
    print(f"\n{traffic.total} requests ({dict(traffic.done)}), {len(traffic.failures)} failed")
    assert traffic.failures == []
    outcomes = [(event["release"], event["outcome"]) for event in ask(made, "history", "local-docker")["history"]]
    assert outcomes == [(first, "deployed"), (second, "deployed"), (third, "deployed"), (broken, "undone")]
