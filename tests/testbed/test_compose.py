"""The stack of compose.yaml on a real engine: it serves, it is watched, and it goes without a trace."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from making_onnx import batched_add

from testbed import haproxy_image, prometheus_image
from testbed.compose_stack import Stack, compose_program
from tritonforge.triton import Client, Connection

pytestmark = pytest.mark.testbed

X = np.arange(4, dtype=np.float32).reshape(1, 4)
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [4] }
output { name: "y" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_CPU }
"""


@pytest.fixture(scope="module")
def stack(engine: Any, image: str, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack as it stands, on a small repository, with ports of its own."""
    models = tmp_path_factory.mktemp("compose") / "models"
    (models / "plus" / "1").mkdir(parents=True)
    (models / "plus" / "config.pbtxt").write_text(CONFIG)
    onnx.save(batched_add(), models / "plus" / "1" / "model.onnx")
    ports = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "PROMETHEUS_PORT")
    environment = {
        "TRITON_IMAGE": image,
        "HAPROXY_IMAGE": haproxy_image.build(engine, base),
        "PROMETHEUS_IMAGE": prometheus_image.build(engine, base),
        "MODELS": str(models),
        **dict.fromkeys(ports, "0"),
    }
    stack = Stack(compose_program(), f"tritonforge-compose-test-{os.getpid()}", environment)
    try:
        stack.run("up", "-d", "--wait")
        yield stack
    finally:
        stack.run("--profile", "rollout", "down", "-v", "-t", "2", check=False)


def ask_prometheus(stack: Stack, query: str) -> list[dict[str, Any]]:
    where = f"http://127.0.0.1:{stack.port('prometheus', 9090)}/api/v1/query"
    with urllib.request.urlopen(f"{where}?{urllib.parse.urlencode({'query': query})}", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def states(stack: Stack) -> dict[str, str]:
    lines = stack.run("--profile", "rollout", "ps", "-a", "--format", "json").stdout.splitlines()
    return {row["Service"]: f"{row['State']} {row['Health']}".strip() for row in map(json.loads, lines)}


def client_of(stack: Stack) -> Client:
    http, grpc = stack.port("haproxy", 8000), stack.port("haproxy", 8001)
    return Client(Connection(http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}"))


def test_it_serves_both_protocols_through_the_proxy(stack: Stack) -> None:
    assert states(stack) == {
        "blue": "running healthy",
        "haproxy": "running healthy",
        "prometheus": "running healthy",
    }
    with client_of(stack) as client:
        for protocol in ("http", "grpc"):
            assert client.infer("plus", {"x": X}, protocol=protocol)["y"].tolist() == (X + 1).tolist()


def test_everything_runs_without_privileges(stack: Stack, engine: Any) -> None:
    label = {"label": f"com.docker.compose.project={stack.project}"}
    for container in engine.containers.list(filters=label):
        settings = container.attrs["HostConfig"]
        assert settings["ReadonlyRootfs"], container.name
        assert settings["CapDrop"] == ["ALL"], container.name
        assert "no-new-privileges:true" in settings["SecurityOpt"], container.name
        bound = [entry["HostIp"] for ports in settings["PortBindings"].values() for entry in ports]
        assert set(bound) == {"127.0.0.1"}, container.name


def test_prometheus_sees_the_slots_and_the_proxy(stack: Stack) -> None:
    expected = {("triton", "blue"), ("haproxy", ""), ("prometheus", "")}
    with client_of(stack) as client:
        client.infer("plus", {"x": X})
    ends = time.monotonic() + 30
    while True:
        up = {(row["metric"]["job"], row["metric"].get("slot", "")) for row in ask_prometheus(stack, "up == 1")}
        if up == expected and ask_prometheus(stack, "nv_inference_request_success > 0"):
            break
        assert time.monotonic() < ends, up
        time.sleep(0.5)
    (idle,) = ask_prometheus(stack, "up == 0")
    assert idle["metric"]["slot"] == "green"
    assert ask_prometheus(stack, 'nv_inference_request_summary_us{model="plus", quantile="0.99"} > 0')
    (weight,) = ask_prometheus(stack, 'haproxy_server_weight{proxy="triton_http", server="blue"}')
    assert weight["value"][1] == "256"


def test_the_other_slot_takes_over_when_one_ends_and_nobody_notices(stack: Stack, engine: Any) -> None:
    stack.run("up", "-d", "--wait", "--no-deps", "green")
    assert states(stack)["green"] == "running healthy"
    time.sleep(1.5)  # the proxy asks for names and for health every second or so
    with client_of(stack) as client:
        engine.api.kill(f"{stack.project}-blue-1")
        for _ in range(50):
            for protocol in ("http", "grpc"):
                assert client.infer("plus", {"x": X}, protocol=protocol)["y"].tolist() == (X + 1).tolist()
        stack.run("up", "-d", "--wait", "blue")
        stack.run("stop", "-t", "2", "green")
        for protocol in ("http", "grpc"):
            assert client.infer("plus", {"x": X}, protocol=protocol)["y"].tolist() == (X + 1).tolist()


def test_a_release_on_the_volume_is_served_by_the_slot_that_names_it(stack: Stack, engine: Any) -> None:
    """As a rollout does it: the keeper has the volume, and one slot is made anew on one snapshot there."""
    agent = Path(__file__).parents[2] / "tritonforge" / "rollout" / "agent"
    assert (agent / "agent.py").is_file()
    settings = {
        "MODELS": "state",
        "MODELS_TYPE": "volume",
        "GREEN_RELEASE": "/tritonforge/snapshots/abc/models",
        "GREEN_ARGUMENTS": "--exit-on-error=false --log-verbose=1",
    }
    stack.run("up", "-d", "--no-deps", "keeper", **settings)
    keeper = engine.containers.get(f"{stack.project}-keeper-1")
    folder = "/tritonforge/snapshots/abc/models/plus/1"
    blue = Path(stack.environment["MODELS"])
    assert keeper.exec_run(["mkdir", "-p", folder]).exit_code == 0
    for path in ("config.pbtxt", "1/model.onnx"):
        content = (blue / "plus" / path).read_bytes().hex()
        write = f"open('/tritonforge/snapshots/abc/models/plus/{path}', 'wb').write(bytes.fromhex('{content}'))"
        assert keeper.exec_run(["python3", "-c", write]).exit_code == 0
    before = engine.containers.get(f"{stack.project}-blue-1").id
    stack.run("up", "-d", "--wait", "--no-deps", "green", **settings)
    assert engine.containers.get(f"{stack.project}-blue-1").id == before
    green = engine.containers.get(f"{stack.project}-green-1")
    (mount,) = green.attrs["Mounts"]
    assert (mount["Name"], mount["RW"]) == (f"{stack.project}_state", False)
    http = stack.port("green", 8000)
    with Client(Connection(http=f"127.0.0.1:{http}")) as client:
        assert client.infer("plus", {"x": X}, protocol="http")["y"].tolist() == (X + 1).tolist()
    assert states(stack)["keeper"] == "running"


def test_a_repository_that_is_not_there_is_an_error(stack: Stack, engine: Any, tmp_path: Path) -> None:
    other = Stack(stack.program, f"{stack.project}-other", {**stack.environment, "MODELS": str(tmp_path / "absent")})
    try:
        done = other.run("up", "-d", "blue", check=False)
        assert done.returncode != 0
        assert "absent" in done.stderr
        assert not (tmp_path / "absent").exists()
    finally:
        other.run("down", "-v", check=False)


def test_down_leaves_nothing(stack: Stack, engine: Any) -> None:
    assert stack.left(engine) != []
    stack.run("--profile", "rollout", "down", "-v", "-t", "10")
    assert stack.left(engine) == []
