"""The embedded server starts, explains why it does not, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import doubling, write_model
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton import Client, Connection, InstalledServer, Launch, RunningServer, cpu_override, start
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

PYTHON = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
            length = np.array([len(item) for item in text.reshape(-1)], np.int32).reshape(text.shape)
            upper = np.array([item.upper() for item in text.reshape(-1)], object).reshape(text.shape)
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("length", length), pb_utils.Tensor("upper", upper)]))
        return responses
"""
PYTHON_CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "text" data_type: TYPE_STRING dims: [-1] }
output { name: "length" data_type: TYPE_INT32 dims: [-1] }
output { name: "upper" data_type: TYPE_STRING dims: [-1] }
instance_group { count: 1 kind: KIND_CPU }
"""
RAISES = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("the vocabulary 'words.txt' is empty")
    def execute(self, requests):
        return []
"""
TENSORS = (
    'input { name: "x" data_type: TYPE_FP32 dims: [3] } output { name: "y" data_type: TYPE_FP32 dims: [3] }\n'
    "instance_group { count: 1 kind: KIND_CPU }\n"
)


def regions(server: RunningServer) -> list[str]:
    """The shared memory regions of that server's Python backend, by the name in its command line."""
    words = psutil.Process(server.pid).cmdline()
    prefix = next(word.rpartition("=")[2] for word in words if "shm-region-prefix-name=" in word)
    return [prefix, *(name for name in os.listdir("/dev/shm") if name.startswith(prefix))]


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_python_model_reads_and_writes_numbers_and_text(client: Client, write: Any, protocol: Any) -> None:
    name = f"words_{protocol}"
    write(name, PYTHON_CONFIG, {"model.py": PYTHON})
    client.load(name)
    text = np.array([[b"one", b""], [b"three\xff", b"x" * 3000]], dtype=object)
    answer = client.infer(name, {"text": text}, protocol=protocol)
    assert answer["length"].tolist() == [[3, 0], [6, 3000]]
    assert answer["upper"].tolist() == [[b"ONE", b""], [b"THREE\xff", b"X" * 3000]]


def test_the_client_tells_state_metadata_and_statistics_alike_on_both_protocols(
    server: RunningServer, client: Client, write: Any
) -> None:
    write("told", f'backend: "onnxruntime" max_batch_size: 2 {TENSORS}', {"model.onnx": doubling(["n", 3])})
    entries = client.load("told")
    assert [(entry.version, entry.state) for entry in entries] == [("1", "READY")]
    client.infer("told", {"x": np.zeros((1, 3), np.float32)})
    over_grpc = Client(Connection(grpc=server.connection.grpc))
    assert client.live()
    assert client.ready()
    assert over_grpc.live()
    assert over_grpc.ready()
    assert client.server_metadata()["version"] == over_grpc.server_metadata()["version"] == "2.51.0"
    assert client.model_metadata("told") == over_grpc.model_metadata("told")
    assert client.model_config("told") == over_grpc.model_config("told")
    assert [entry for entry in client.index() if entry.name == "told"] == [
        entry for entry in over_grpc.index() if entry.name == "told"
    ]
    for one in (client, over_grpc):
        assert one.model_ready("told")
        assert one.model_ready("told", "1")
        assert not one.model_ready("told", "2")
        assert not one.model_ready("unheard_of")
        assert one.statistics("told")["model_stats"][0]["inference_count"] == 1
    assert all(entry.state == "UNAVAILABLE" for entry in client.unload("told"))
    assert not client.model_ready("told")
    over_grpc.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_errors_of_an_inference_are_the_servers_words(client: Client, protocol: Any) -> None:
    with pytest.raises(CheckFailed, match="unheard_of"):
        client.infer("unheard_of", {"x": np.zeros(1, np.float32)}, protocol=protocol)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://127.0.0.1:1"])
def test_a_server_that_cannot_be_reached_is_named(url: str) -> None:
    client = Client(Connection.from_url(url))
    assert not client.live()
    assert not client.ready()
    with pytest.raises(EnvironmentLacks) as caught:
        client.index()
    assert url in str(caught.value)


def test_a_model_that_raises_at_load_shows_its_reason(client: Client, write: Any) -> None:
    write("raises", PYTHON_CONFIG, {"model.py": RAISES})
    with pytest.raises(CheckFailed) as caught:
        client.load("raises")
    assert "RuntimeError: the vocabulary 'words.txt' is empty" in str(caught.value)
    assert "model.py(4): initialize" in str(caught.value)


def test_a_config_that_cannot_be_parsed_shows_the_parsers_words(client: Client, write: Any) -> None:
    write("unparsed", 'backend: "python"\nno_such_field: 3\n', {"model.py": RAISES})
    with pytest.raises(CheckFailed) as caught:
        client.load("unparsed")
    assert "no_such_field" in str(caught.value)


def test_a_missing_backend_is_named_with_those_at_hand(client: Client, write: Any) -> None:
    write("lacks", f'backend: "tensorrt" {TENSORS}', {"model.plan": b"x"})
    with pytest.raises(CheckFailed) as caught:
        client.load("lacks")
    assert "this server has no backend 'tensorrt'; it has: onnxruntime, openvino, python, pytorch" in str(caught.value)


def test_a_config_for_gpus_loads_with_an_override(client: Client, write: Any) -> None:
    text = f'name: "gpu" backend: "onnxruntime" max_batch_size: 4 {TENSORS}'.replace("KIND_CPU", "KIND_GPU")
    folder = write("gpu", text, {"model.onnx": doubling(["n", 3])})
    with pytest.raises(CheckFailed, match="GPU"):
        client.load("gpu")
    override = cpu_override(text_format.Parse(text, ModelConfig()))
    client.load("gpu", override)
    assert client.infer("gpu", {"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]
    assert (folder / "config.pbtxt").read_text() == text


def test_a_load_that_outlives_its_call_is_followed_in_the_index(client: Client, write: Any) -> None:
    slow = PYTHON.replace(
        "    def execute", "    def initialize(self, args):\n        import time; time.sleep(2)\n    def execute"
    )
    write("slow", PYTHON_CONFIG, {"model.py": slow})
    began = time.monotonic()
    entries = client.load("slow", timeout=1.0)
    assert [entry.state for entry in entries] == ["READY"]
    assert time.monotonic() - began > 1.0


def test_a_start_with_a_bad_model_says_why_and_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    write_model(tmp_path / "repo", "bad", PYTHON_CONFIG, {"model.py": RAISES})
    write_model(tmp_path / "repo", "lacks", f'backend: "tensorrt" {TENSORS}', {"model.plan": b"x"})
    log = tmp_path / "triton.log"
    with pytest.raises(CheckFailed) as caught:
        start(Launch(tmp_path / "repo", log_path=log), runtime)
    message = str(caught.value)
    assert "2 models do not load" in message
    assert "bad: Internal: RuntimeError: the vocabulary 'words.txt' is empty" in message
    assert "has no backend tensorrt" in message
    assert "--container IMAGE" in message
    assert "RuntimeError" in log.read_text()


def test_a_server_that_stays_up_with_a_bad_model_says_so_too(runtime: Runtime, tmp_path: Path) -> None:
    write_model(tmp_path / "repo", "bad", PYTHON_CONFIG, {"model.py": RAISES})
    with pytest.raises(CheckFailed, match="model 'bad' does not load"):
        start(Launch(tmp_path / "repo", exit_on_error=False), runtime)


def test_a_port_in_use_is_named_with_its_holder(runtime: Runtime, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EnvironmentLacks) as caught:
            start(Launch(tmp_path, control="explicit", grpc=port), runtime)
    assert f"port {port} is in use by" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)


def test_a_free_port_that_is_taken_meanwhile_is_chosen_again(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tritonforge.triton import ports

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = [listener.getsockname()[1]]
        real = ports.free
        monkeypatch.setattr(ports, "free", lambda host: taken.pop() if taken else real(host))
        server = start(Launch(tmp_path, control="explicit"), runtime)
        try:
            assert server.client().live()
        finally:
            server.stop(0)


@pytest.mark.parametrize("grace", [None, 0.0])
def test_nothing_is_left_after_stop(runtime: Runtime, tmp_path: Path, grace: float | None) -> None:
    write_model(tmp_path / "repo", "words", PYTHON_CONFIG, {"model.py": PYTHON})
    log = tmp_path / "triton.log"
    server = start(Launch(tmp_path / "repo", log_path=log), runtime)
    processes = family(server.pid)
    assert len(processes) >= 2
    prefix, *found = regions(server)
    assert found
    began = time.monotonic()
    server.stop(grace)
    server.stop(grace)
    assert not server.running
    assert time.monotonic() - began < 15
    assert gone(processes)
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]
    assert "Started HTTPService" in log.read_text()


def test_an_idle_client_does_not_hold_up_the_stop(runtime: Runtime, tmp_path: Path) -> None:
    server = start(Launch(tmp_path, control="explicit", exit_timeout=20), runtime)
    assert server.client().index() == []
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10


CHILD = """
import sys
from pathlib import Path
from tritonforge.triton import Launch, start
from tritonforge.triton.embedded import Runtime
server = start(Launch(Path(sys.argv[1])), Runtime(Path(sys.argv[2]), sys.argv[3]))
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("victim", ["parent", "warden"])
def test_nothing_is_left_after_a_kill(runtime: Runtime, tmp_path: Path, victim: str) -> None:
    write_model(tmp_path / "repo", "words", PYTHON_CONFIG, {"model.py": PYTHON})
    words = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "repo"), str(runtime.root), runtime.python]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        pid = int(child.stdout.readline())
        processes = family(pid)
        assert len(processes) >= 2
        target = child.pid if victim == "parent" else processes[0].ppid()
        os.kill(target, signal.SIGKILL)
        assert gone(processes, 20)
    finally:
        child.kill()
        child.wait()


def test_an_installed_server_is_started_by_its_path(runtime: Runtime, tmp_path: Path) -> None:
    write_model(tmp_path / "repo", "words", PYTHON_CONFIG, {"model.py": PYTHON})
    launch = Launch(tmp_path / "repo", env={"LD_LIBRARY_PATH": runtime.env()["LD_LIBRARY_PATH"]})
    with start(launch, InstalledServer(runtime.root)) as server:
        assert server.client().model_ready("words")
        server.stop(0)
    with pytest.raises(EnvironmentLacks, match="no Triton server at"):
        InstalledServer(tmp_path).program()


def test_a_program_that_cannot_start_says_what_it_said(runtime: Runtime, tmp_path: Path) -> None:
    broken = tmp_path / "tritonserver"
    broken.write_text("#!/bin/sh\necho tritonserver: error while loading shared libraries: libx.so >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="error while loading shared libraries"):
        start(Launch(tmp_path), InstalledServer(broken))
