"""One embedded runtime for the session, and a repository in explicit mode that tests add models to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton import Client, Launch, RunningServer, start
from tritonforge.triton.embedded import Runtime, install


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """The embedded Triton; installed on first use."""
    try:
        return install()
    except EnvironmentLacks as error:
        pytest.skip(f"the embedded Triton cannot run here: {error}")


def onnx_model(
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    **initializers: np.ndarray,
) -> onnx.ModelProto:
    """A model of ``nodes``; tensors are (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *entry) for name, entry in inputs.items()],
        [helper.make_tensor_value_info(name, *entry) for name, entry in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def doubling(shape: list[Any], element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """``y = x + x``."""
    return onnx_model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (element, shape)}, {"y": (element, shape)})


Write = Callable[..., Path]


def write_model(repository: Path, name: str, config: str | None, files: dict[str, Any], version: str = "1") -> Path:
    """Write a model's folder; a value of ``files`` is text, bytes or an ONNX model."""
    folder = repository / name
    (folder / version).mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for path, content in files.items():
        target = folder / version / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            target.write_text(content)
        elif isinstance(content, bytes):
            target.write_bytes(content)
        else:
            onnx.save(content, target)
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="session")
def server(runtime: Runtime, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server in explicit mode, without models at first."""
    log = tmp_path_factory.mktemp("log") / "triton.log"
    running = start(Launch(repository, control="explicit", strict_readiness=False, log_path=log), runtime)
    yield running
    running.stop(0)


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def write(repository: Path) -> Write:
    """``write(name, config, files)`` adds a model to the shared repository."""

    def write(name: str, config: str | None, files: dict[str, Any], version: str = "1") -> Path:
        return write_model(repository, name, config, files, version)

    return write
