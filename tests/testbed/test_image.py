"""Images that are really built: as somebody who is not root, on a disk that cannot be written, healthy, and serving."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.commands import Workshop
from making_onnx import batched_add, save

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection

pytestmark = pytest.mark.testbed

TAG = "tritonforge-test/baked"
X = np.arange(4, dtype=np.float32).reshape(1, 4)
SPEC = """\
models:
  plus: {source: plus.onnx, max_batch_size: 4, config: {instance_group: [{count: 1, kind: KIND_CPU}]}}
  twice:
    source: twice.py
    max_batch_size: 4
    inputs: {x: "FP32[4]"}
    outputs: {y: "FP32[4]"}
    config: {instance_group: [{count: 1, kind: KIND_CPU}]}
"""
TWICE = """\
import os
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        assert os.getuid() == 1000, "it serves as root"
        found = [pb_utils.get_input_tensor_by_name(item, "x").as_numpy() for item in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x * 2)]) for x in found]
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("image") / "w")
    save(made.folder / "plus.onnx", batched_add())
    (made.folder / "twice.py").write_text(TWICE)
    made.write(SPEC)
    made.build()
    return made


@pytest.fixture
def tag(engine: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for an image, which goes with the test, as do its containers."""
    import docker.errors

    name = f"{TAG}:{request.node.name.split('[')[0].replace('test_', '')[:60]}"
    yield name
    for container in engine.containers.list(all=True, filters={"ancestor": name}):
        container.remove(force=True, v=True)
    with contextlib.suppress(docker.errors.ImageNotFound):
        engine.images.remove(name, force=True)
    for left in engine.images.list(filters={"dangling": True}):  # the stages before the last
        with contextlib.suppress(docker.errors.APIError):
            if any("/present" in step["CreatedBy"] for step in left.history()):
                engine.images.remove(left.id, force=True)


def run(engine: Any, tag: str, **options: Any) -> Any:
    return engine.containers.run(
        tag,
        detach=True,
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size="256m",
        ports={"8000/tcp": ("127.0.0.1", None), "8001/tcp": ("127.0.0.1", None)},
        **options,
    )


def until_healthy(container: Any, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while True:
        container.reload()
        state = container.attrs["State"]
        if state.get("Health", {}).get("Status") == "healthy":
            return
        assert state["Status"] == "running", container.logs().decode()[-2000:]
        assert time.monotonic() < ends, f"{state}\n{container.logs().decode()[-2000:]}"
        time.sleep(0.3)


def asked(container: Any) -> dict[str, list[Any]]:
    container.reload()
    http, grpc = (int(container.ports[f"{port}/tcp"][0]["HostPort"]) for port in (8000, 8001))
    with Client(Connection(http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}")) as client:
        return {name: client.infer(name, {"x": X})["y"].tolist() for name in ("plus", "twice")}


ANSWERS = {"plus": (X + 1).tolist(), "twice": (X * 2).tolist()}


def test_a_release_that_is_baked_in_serves_as_nobody_on_a_disk_that_cannot_be_written(
    shop: Workshop, engine: Any, image: str, tag: str
) -> None:
    made = shop.json("image", "--kind", "release", "--base", image, "--build", tag)
    assert made["image"] == engine.images.get(tag).id
    attributes = engine.images.get(tag).attrs["Config"]
    assert attributes["User"] == "1000:1000"
    assert attributes["Labels"]["tritonforge.release"] == shop.current()
    container = run(engine, tag, healthcheck={"interval": 500_000_000, "start_period": 30_000_000_000, "retries": 60})
    until_healthy(container)
    assert asked(container) == ANSWERS
    assert container.exec_run(["id", "-u"]).output.strip() == b"1000"
    assert container.exec_run(["touch", "/models/x"]).exit_code != 0
    container.stop(timeout=20)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0, "told to end, it ends in order"


def test_an_image_of_the_needed_parts_alone_serves_a_mounted_release(
    shop: Workshop, engine: Any, image: str, base: str, tag: str
) -> None:
    shop.json("image", "--kind", "cpu", "--base", image, "--minimal", base, "--build", tag)
    models = shop.folder / "build" / "local" / "releases" / str(shop.current()) / "models"
    container = run(
        engine,
        tag,
        volumes={str(models): {"bind": "/models", "mode": "ro"}},
        healthcheck={"interval": 500_000_000, "start_period": 30_000_000_000, "retries": 60},
    )
    until_healthy(container)
    assert asked(container) == ANSWERS
    listed = container.exec_run(["ls", "/opt/tritonserver/backends"]).output.decode().split()
    assert sorted(listed) == ["onnxruntime", "python"], "the base has more"
    whole = engine.images.get(image).attrs["Size"]
    assert engine.images.get(tag).attrs["Size"] <= whole + (2 << 20)


def test_a_server_without_its_models_is_unhealthy(shop: Workshop, engine: Any, image: str, tag: str) -> None:
    shop.json("image", "--kind", "release", "--base", image, "--build", tag)
    container = run(engine, tag, command=["sleep", "60"])
    assert container.exec_run(["bash", "/opt/tritonforge/healthcheck.sh"]).exit_code != 0


def test_a_backend_that_the_base_lacks_is_named(shop: Workshop, image: str, base: str, tag: str) -> None:
    from tritonforge.actions.image import ImageContext, ImageOptions, image_context
    from tritonforge.actions.image_build import build_image
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(shop.folder / "forge.yaml")
    options = ImageOptions("cpu", image, base, None, shop.folder / "lacking")
    made: ImageContext = image_context(workspace, None, None, options)
    dockerfile = made.folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("/parts onnxruntime", "/parts surely_not"))
    with pytest.raises(CheckFailed, match="the image does not build") as caught:
        build_image(made, tag, lambda line: None)
    assert "this Triton has no backend 'surely_not'" in str(caught.value)
    assert "--base" in str(caught.value)


def test_a_base_that_is_nowhere_is_one_clear_error(shop: Workshop, engine: Any, tmp_path: Path) -> None:
    from tritonforge.actions.image import ImageOptions, image_context
    from tritonforge.actions.image_build import build_image
    from tritonforge.actions.workspace import open_workspace

    options = ImageOptions("release", "127.0.0.1:1/nobody/triton:1", None, None, tmp_path / "out")
    made = image_context(open_workspace(shop.folder / "forge.yaml"), None, None, options)
    with pytest.raises(EnvironmentLacks, match="cannot be pulled"):
        build_image(made, "tritonforge-test/never:1", lambda line: None)
