"""A server in a container of a real Docker engine: it serves, says why it does not, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from making_onnx import batched_add

from testbed.conftest import Ours
from tritonforge.actions.live import has_gpu
from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton import ContainerServer, Launch, RunningServer, start
from tritonforge.triton import ports as port_choice
from tritonforge.triton.embedded import default_home

pytestmark = pytest.mark.testbed

X = np.arange(4, dtype=np.float32).reshape(1, 4)
ONNX_CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [4] }
output { name: "y" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_CPU }
"""
PYTHON_CONFIG = ONNX_CONFIG.replace("onnxruntime", "python")
PYTHON = """
import os
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(request, "x").as_numpy() * 2)]
            )
            for request in requests
        ]
"""
OWNER = """
import sys, time
from pathlib import Path
from tritonforge.triton import ContainerServer, Launch, start

server = start(Launch(Path(sys.argv[1]), control="explicit", exit_timeout=2.0), ContainerServer(sys.argv[2]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_home(home: Path) -> Path:
    """Lock files of this test alone."""
    return home


def add_onnx(repository: Path, name: str = "plus") -> Path:
    file = repository / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(ONNX_CONFIG)
    onnx.save(batched_add(), file)
    return file


def add_python(repository: Path, name: str, initialize: str = "pass") -> Path:
    file = repository / name / "1" / "model.py"
    file.parent.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(PYTHON_CONFIG)
    file.write_text(PYTHON.format(initialize=initialize))
    return file


def wardens() -> list[psutil.Process]:
    """The wardens of this user's containers."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith("container_warden.py") for word in words):
            found.append(process)
    return found


def locks() -> list[str]:
    return [path.name for path in (default_home() / "containers").glob("*")]


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def owner(image: str, repository: Path, ours: Ours) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a server in a container."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(repository), image], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        yield process
        process.kill()


def warden_of(owner: subprocess.Popen[bytes]) -> psutil.Process:
    found = [item for item in wardens() if json.loads(item.cmdline()[-1])["parent"] == owner.pid]
    assert len(found) == 1
    return found[0]


def test_it_serves_both_protocols_and_is_gone_after_stop(
    image: str, repository: Path, ours: Ours, engine: Any, tmp_path: Path
) -> None:
    add_onnx(repository)
    add_python(repository, "twice")
    log = tmp_path / "logs" / "triton.log"
    with start(Launch(repository, log_path=log), ContainerServer(image)) as server, server.client() as client:
        (name,) = ours()
        assert engine.containers.get(name).labels["tritonforge.process"] == str(os.getpid())
        assert server.running
        assert server.pid is None
        assert client.server_metadata()["version"] == "2.51.0"
        for protocol in ("http", "grpc"):
            assert client.infer("plus", {"x": X}, protocol=protocol)["y"].tolist() == (X + 1).tolist()
            assert client.infer("twice", {"x": X}, protocol=protocol)["y"].tolist() == (X * 2).tolist()
        started = time.monotonic()
    assert time.monotonic() - started < 10, "it ends when asked to, not when its time is over"
    assert ours() == set()
    assert locks() == []
    assert "Triton Inference Server" in log.read_text(), "what the image's entrypoint says is in the log too"
    assert "Waiting for in-flight requests to complete" in log.read_text()


def test_models_are_loaded_on_request_in_explicit_mode(image: str, repository: Path, ours: Ours) -> None:
    add_onnx(repository)
    with (
        start(Launch(repository, control="explicit"), ContainerServer(image)) as server,
        server.client() as client,
    ):
        assert not client.model_ready("plus")
        client.load("plus")
        assert client.infer("plus", {"x": X})["y"].tolist() == (X + 1).tolist()


def test_a_model_that_does_not_load_is_shown_with_its_reason(image: str, repository: Path, ours: Ours) -> None:
    add_onnx(repository)
    add_python(repository, "words", "raise RuntimeError(\"the vocabulary 'words.txt' is empty\")")
    with pytest.raises(CheckFailed) as caught:
        start(Launch(repository), ContainerServer(image))
    assert "model 'words' does not load" in str(caught.value)
    assert "the vocabulary 'words.txt' is empty" in str(caught.value)
    assert ours() == set()


def test_a_model_that_does_not_load_on_request_is_shown_with_its_reason(
    image: str, repository: Path, ours: Ours
) -> None:
    add_python(repository, "words", "import surely_not_in_the_image")
    with (
        start(Launch(repository, control="explicit"), ContainerServer(image)) as server,
        server.client() as client,
        pytest.raises(CheckFailed, match="No module named 'surely_not_in_the_image'"),
    ):
        client.load("words")


def test_a_backend_that_the_image_lacks_is_named(image: str, repository: Path, ours: Ours) -> None:
    add_onnx(repository)
    config = repository / "plus" / "config.pbtxt"
    config.write_text(config.read_text().replace("onnxruntime", "tensorrt"))
    with pytest.raises(CheckFailed) as caught:
        start(Launch(repository), ContainerServer(image))
    assert "this server has no backend tensorrt; choose an image" in str(caught.value)


def test_the_repository_is_read_only(image: str, repository: Path, ours: Ours) -> None:
    add_python(repository, "writes", "open(os.path.join(args['model_repository'], 'mine'), 'w')")
    with pytest.raises(CheckFailed, match="Read-only file system"):
        start(Launch(repository), ContainerServer(image))
    assert not (repository / "writes" / "mine").exists()


def test_hard_links_and_a_symbolic_link_to_the_repository_are_no_hindrance(
    image: str, tmp_path: Path, ours: Ours
) -> None:
    """As a release is: files linked from the store, mode 444, and `current` a link to its folder."""
    stored = add_onnx(tmp_path / "store")
    release = tmp_path / "releases" / "0123" / "models"
    (release / "plus" / "1").mkdir(parents=True)
    os.link(stored, release / "plus" / "1" / "model.onnx")
    os.link(stored.parents[1] / "config.pbtxt", release / "plus" / "config.pbtxt")
    stored.chmod(0o444)
    (tmp_path / "current").symlink_to("releases/0123")
    with (
        start(Launch(tmp_path / "current" / "models"), ContainerServer(image)) as server,
        server.client() as client,
    ):
        assert client.infer("plus", {"x": X})["y"].tolist() == (X + 1).tolist()


@pytest.mark.parametrize("name", ["with space", "a:b", "a,b=c", "日本語"])
def test_the_repository_may_be_anywhere(image: str, tmp_path: Path, ours: Ours, name: str) -> None:
    add_python(tmp_path / name, "twice")
    with start(Launch(tmp_path / name), ContainerServer(image)) as server, server.client() as client:
        assert client.infer("twice", {"x": X})["y"].tolist() == (X * 2).tolist()


def test_arguments_and_environment_reach_the_server(image: str, repository: Path, ours: Ours) -> None:
    add_python(repository, "says", "raise RuntimeError('it says ' + os.environ['SAID'])")
    launch = Launch(repository, arguments=("--log-verbose=1",), env={"SAID": "a word"})
    with pytest.raises(CheckFailed, match="it says a word"):
        start(launch, ContainerServer(image))


def test_the_container_is_gone_soon_after_its_owner_was_killed(owner: subprocess.Popen[bytes], ours: Ours) -> None:
    assert len(ours()) == len(locks()) == 1
    owner.kill()
    owner.wait()
    assert eventually(lambda: not ours() and not locks(), 20)


def test_the_container_of_an_owner_that_forked_is_gone_as_well(image: str, repository: Path, ours: Ours) -> None:
    """A fork holds the warden's pipe open."""
    forking = OWNER.replace('print("started"', 'import os; child = os.fork() or time.sleep(60)\nprint(f"{child}"')
    with subprocess.Popen([sys.executable, "-c", forking, str(repository), image], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
        gone = eventually(lambda: not ours(), 20)
        os.kill(child, signal.SIGKILL)
    assert gone


def test_what_a_killed_owner_and_warden_leave_is_removed_by_the_next_start(
    owner: subprocess.Popen[bytes], image: str, repository: Path, ours: Ours
) -> None:
    (left,) = ours()
    warden = warden_of(owner)
    warden.kill()
    owner.kill()
    owner.wait()
    psutil.wait_procs([warden], 5)
    time.sleep(1.0)
    assert ours() == {left}
    with start(Launch(repository, control="explicit"), ContainerServer(image)):
        assert left not in ours()
    assert not locks()


def test_the_container_of_a_living_owner_is_left_alone(
    owner: subprocess.Popen[bytes], image: str, repository: Path, ours: Ours
) -> None:
    (theirs,) = ours()
    with start(Launch(repository, control="explicit"), ContainerServer(image)):
        assert theirs in ours()
    assert ours() == {theirs}


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.4, 1.0])
def test_an_interrupted_start_leaves_nothing(image: str, repository: Path, ours: Ours, after: float) -> None:
    """Whether the engine is about to make the container, has made it, is starting it, or it runs."""
    add_python(repository, "slow", "import time; time.sleep(30)")
    script = OWNER.replace('control="explicit", ', "").replace("server =", 'print("starts", flush=True)\nserver =')
    with subprocess.Popen(
        [sys.executable, "-c", script, str(repository), image], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"starts\n"
        time.sleep(after)
        owner.send_signal(signal.SIGINT)
        _, said = owner.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    assert ours() == set()
    assert locks() == []


def test_a_container_that_somebody_removes_has_ended(image: str, repository: Path, ours: Ours, engine: Any) -> None:
    with start(Launch(repository, control="explicit"), ContainerServer(image)) as server:
        engine.api.remove_container(ours().pop(), force=True)
        assert not server.running


def test_a_port_in_use_here_is_named_with_its_holder(image: str, repository: Path, taken: int, ours: Ours) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        start(Launch(repository, control="explicit", http=taken), ContainerServer(image))
    assert f"port {taken} is in use" in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert ours() == set()


def test_a_port_of_another_container_is_named(image: str, repository: Path, ours: Ours) -> None:
    launch = Launch(repository, control="explicit")
    with start(launch, ContainerServer(image)) as first:
        port = int((first.connection.http or "").rpartition(":")[2])
        with pytest.raises(EnvironmentLacks, match=f"port {port} is in use"):
            start(Launch(repository, control="explicit", grpc=port), ContainerServer(image))
        assert len(ours()) == 1


def test_a_port_that_is_taken_at_the_last_moment(
    image: str, repository: Path, taken: int, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was free is replaced; one that was asked for is an error, though nobody was seen to hold it."""
    given = iter([taken])
    free = port_choice.free
    monkeypatch.setattr(port_choice, "free", lambda host: next(given, None) or free(host))
    with start(Launch(repository, control="explicit"), ContainerServer(image)) as server, server.client() as client:
        assert client.live()
        assert len(ours()) == 1
    monkeypatch.setattr(port_choice, "require_free", lambda host, port: None)
    with pytest.raises(EnvironmentLacks, match=f"port {taken} is in use"):
        start(Launch(repository, control="explicit", metrics=taken), ContainerServer(image))
    assert ours() == set()
    assert locks() == []


@pytest.mark.parametrize("missing", ["tritonforge-test/nowhere:1", "127.0.0.1:9/nowhere:1", "Not A Name"])
def test_an_image_that_cannot_be_had_is_an_error_in_the_engines_words(
    engine: Any, repository: Path, ours: Ours, missing: str
) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        start(Launch(repository), ContainerServer(missing))
    said = str(caught.value)
    assert f"the image {missing} is not in the Docker engine, and cannot be pulled" in said
    assert "found: " in said
    assert "nvcr.io/nvidia/tritonserver:24.10-py3" in said
    assert ours() == set()


def test_an_image_without_triton_is_told_apart(base: str, repository: Path, ours: Ours) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        start(Launch(repository), ContainerServer(base))
    assert f"the image {base} does not run" in str(caught.value)
    assert "the image has no tritonserver" in str(caught.value)
    assert ours() == set()
    assert locks() == []


def test_a_server_that_ends_at_once_is_shown_with_its_words(image: str, repository: Path, ours: Ours) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        start(Launch(repository, arguments=("--no-such-option",)), ContainerServer(image))
    assert "ended before it was ready" in str(caught.value)
    assert "no-such-option" in str(caught.value)


@pytest.mark.skipif(has_gpu(), reason="this machine has GPUs")
def test_gpus_where_there_are_none_name_what_the_engine_needs(image: str, repository: Path, ours: Ours) -> None:
    with pytest.raises(EnvironmentLacks, match="NVIDIA Container Toolkit"):
        start(Launch(repository), ContainerServer(image, gpus=True))
    assert ours() == set()


def test_servers_side_by_side_do_not_disturb_each_other(image: str, repository: Path, ours: Ours) -> None:
    add_onnx(repository)
    running: list[RunningServer] = []
    try:
        for _ in range(2):
            running.append(start(Launch(repository), ContainerServer(image)))
        assert len(ours()) == 2
        for server in running:
            with server.client() as client:
                assert client.infer("plus", {"x": X})["y"].tolist() == (X + 1).tolist()
    finally:
        for server in running:
            server.stop(0)
    assert ours() == set()
    assert locks() == []
