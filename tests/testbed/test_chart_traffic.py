"""The chart with pods that really run: Triton serves a release from a volume, behind the chart's proxy, under load."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helm.chart import merged
from helm.cluster import Cluster, cluster_of_its_own, eventually
from making_onnx import batched_add
from traffic import Traffic

pytestmark = [pytest.mark.testbed, pytest.mark.slow]

FIRST, SECOND = "a" * 64, "b" * 64
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [4] }
output { name: "y" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_CPU }
"""
X = np.arange(4, dtype=np.float32).reshape(1, 4)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """What the servers read: releases FIRST, which adds 1, and SECOND, which adds 10."""
    for release, addend in ((FIRST, 1.0), (SECOND, 10.0)):
        model = tmp_path / "volume" / "snapshots" / release / "models" / "plus"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(CONFIG)
        onnx.save(batched_add(addend), model / "1" / "model.onnx")
    return tmp_path / "volume"


@pytest.fixture
def cluster(volume: Path) -> Iterator[Cluster]:
    with cluster_of_its_own(volume) as found:
        if found.fake:
            pytest.skip("the cluster's pods do not really run")
        yield found


@pytest.fixture
def haproxy(engine: Any, base: str) -> str:
    """The name of an image with HAProxy."""
    return str(pytest.importorskip("testbed.haproxy_image").build(engine, base))


@pytest.fixture
def values(image: str, haproxy: str) -> dict[str, Any]:
    """Small pods that start and drain fast."""
    small = {"requests": {"cpu": "20m", "memory": "64Mi"}}
    return {
        "image": _image(image),
        "slots": {"blue": {"release": FIRST, "replicas": 2}},
        "proxy": {
            "enabled": True,
            "replicas": 1,
            "image": _image(haproxy),
            "resources": small,
            "shutdown": {"drainSeconds": 3, "hardStopSeconds": 5},
        },
        "server": {"resources": small, "env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
        "shutdown": {"drainSeconds": 6, "grpcConnectionSeconds": 4, "exitTimeoutSeconds": 5},
        "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
        "models": {"pvc": {"create": {"storageClassName": "-", "size": "1Gi"}}},
        "tests": {"models": ["plus"]},
    }


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


def tell(cluster: Cluster, command: str) -> str:
    """One command to every proxy's runtime socket."""
    said = []
    for pod in cluster.pods("proxy"):
        with socket.create_connection((pod["status"]["podIP"], 9999), timeout=5) as stream:
            stream.sendall(command.encode() + b"\n")
            said.append(b"".join(iter(lambda: stream.recv(65536), b"")).decode())
    return "".join(said)


def servers(cluster: Cluster, slot: str) -> list[str]:
    """What the proxies say of a slot's servers."""
    return [
        line for line in tell(cluster, "show stat").splitlines() if line.startswith("triton_") and f",{slot}," in line
    ]


def move(cluster: Cluster, blue: int, green: int) -> None:
    for backend in ("triton_http", "triton_grpc"):
        for slot, weight in (("blue", blue), ("green", green)):
            assert tell(cluster, f"set server {backend}/{slot} weight {weight}").strip() == ""


def ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8000, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def added(outputs: dict[str, Any]) -> float:
    (addend,) = set((outputs["y"] - X).reshape(-1).tolist())
    assert addend in (1.0, 10.0)
    return float(addend)


def test_scaling_down_and_moving_between_slots_loses_no_request(cluster: Cluster, values: dict[str, Any]) -> None:
    cluster.install(values, "--wait", "--timeout=180s")
    address = cluster.address()
    eventually(lambda: ready(address), 30)
    assert "Succeeded" in cluster.helm("test", "shop", "--timeout=120s")
    seen: list[float] = []

    def check(outputs: dict[str, Any]) -> None:
        seen.append(added(outputs))

    with Traffic(f"{address}:8000", f"{address}:8001", "plus", {"x": X}, check, threads=2) as traffic:
        traffic.wait_for(200)

        # Scaling down from two pods to one.
        cluster.upgrade(merged(values, {"slots": {"blue": {"replicas": 1}}}))
        eventually(lambda: len(cluster.pods("server", "blue")) == 1, 90)
        traffic.wait_for(200)
        assert set(seen) == {1.0}

        # The second slot starts beside the first; weights move in the running proxy; the first slot ends.
        green = {"slots": {"blue": {"replicas": 1}, "green": {"enabled": True, "release": SECOND}}}
        proxies = {pod["metadata"]["uid"] for pod in cluster.pods("proxy")}
        cluster.upgrade(merged(values, green), "--wait", "--timeout=180s")
        eventually(lambda: not any("DOWN" in line for line in servers(cluster, "green")), 20)
        move(cluster, 50, 50)
        before = len(seen)
        traffic.wait_for(200)
        share = sum(addend == 10.0 for addend in seen[before:]) / len(seen[before:])
        assert 0.3 < share < 0.7
        move(cluster, 0, 100)
        cluster.upgrade(
            merged(values, green, {"traffic": {"blue": 0, "green": 100}, "slots": {"blue": {"enabled": False}}}),
            "--wait",
            "--timeout=180s",
        )
        eventually(lambda: not cluster.pods("server", "blue"), 90)
        before = len(seen)
        traffic.wait_for(200)
        assert set(seen[before:]) == {10.0}
        assert {pod["metadata"]["uid"] for pod in cluster.pods("proxy")} == proxies

    assert traffic.failures == []
    assert min(traffic.done["http"], traffic.done["grpc"]) > 200
    print(f"{traffic.total} requests, {traffic.done}, slowest {traffic.slowest:.3f} s")
