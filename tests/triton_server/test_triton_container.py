"""What is asked of a Docker engine; ``tests/testbed`` asks a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton import ContainerServer, Launch, container, container_claim, engine
from tritonforge.triton.ports import Ports, PortTaken

docker = pytest.importorskip("docker")


def test_without_an_engine_the_other_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "_SOCKET", tmp_path / "docker.sock")
    with pytest.raises(EnvironmentLacks, match="there is no Docker engine here"):
        container.start_container(ContainerServer("image"), Launch(tmp_path), Ports(1, 2, 3), tmp_path / "log")


def test_an_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    server = ContainerServer("image", docker_host="tcp://127.0.0.1:9")
    with pytest.raises(EnvironmentLacks, match=r"tcp://127\.0\.0\.1:9 does not answer"):
        container.start_container(server, Launch(tmp_path), Ports(1, 2, 3), tmp_path / "log")


@pytest.mark.parametrize(
    "address", ["ssh://me@192.0.2.1", "ssh://localhost", "tcp://192.0.2.1:2375", "http://192.0.2.1"]
)
def test_an_engine_on_another_machine_is_refused(address: str) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        engine.require_this_machine(address)
    assert "the Docker engine is on another machine" in str(caught.value)
    assert address in str(caught.value)
    assert "--server http://HOST:PORT" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://:2375"]
)
def test_an_engine_of_this_machine_is_taken(address: str) -> None:
    engine.require_this_machine(address)


class FakeContainer:
    def __init__(self) -> None:
        self.attrs: dict[str, Any] = {"State": {"Status": "running", "ExitCode": 0}}
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def logs(self, **_: Any) -> list[bytes]:
        return [b"Started HTTPService\n"]

    def reload(self) -> None:
        self.calls.append("reload")

    def stop(self, timeout: int) -> None:
        self.calls.append(f"stop {timeout}")


class FakeEngine:
    """Has every image; ``starting`` is what starting a container raises."""

    def __init__(self, starting: Exception | None = None) -> None:
        self.container = FakeContainer()
        self.asked: dict[str, Any] = {}
        self.images = self.containers = self.api = self
        self.starting = starting

    def get(self, image: str) -> str:
        return image

    def list(self, **_: Any) -> list[Any]:
        return []

    def create(self, image: str, words: list[str], **options: Any) -> FakeContainer:
        self.asked.update(options, image=image, words=words)
        if self.starting is not None:
            raise self.starting
        return self.container

    def remove_container(self, name: str, **_: Any) -> None:
        assert name == self.asked["name"]
        self.container.calls.append("remove")

    def close(self) -> None:
        self.closed = True


def begin(fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    monkeypatch.setattr(container, "connect", lambda _: fake)
    launch = Launch(tmp_path, control="explicit", load=("m",), **more)
    return container.start_container(ContainerServer("triton:1"), launch, Ports(11, 12, 13), tmp_path / "log")


def test_the_repository_is_mounted_read_only_and_ports_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    fake = FakeEngine()
    process = begin(fake, tmp_path, monkeypatch)
    asked, calls = fake.asked, fake.container.calls
    assert asked["mounts"] == [{"Target": "/models", "Source": str(tmp_path), "Type": "bind", "ReadOnly": True}]
    assert asked["ports"] == {
        "8000/tcp": ("127.0.0.1", 11),
        "8001/tcp": ("127.0.0.1", 12),
        "8002/tcp": ("127.0.0.1", 13),
    }
    assert asked["words"][0] == "tritonserver"
    assert {"--model-repository=/models", "--load-model=m", "--http-port=8000"} <= set(asked["words"])
    assert asked["device_requests"] is None
    lock = Path(asked["labels"][container_claim.LABEL])
    assert lock.is_relative_to(home)
    assert lock.exists()
    assert process.poll() is None
    fake.container.attrs["State"] = {"Status": "exited", "ExitCode": 1}
    assert process.poll() == 1
    process.stop(3.5)
    process.stop(3.5)
    assert calls[0] == "start"
    assert calls[-2:] == ["stop 3", "remove"]
    assert not lock.exists()
    assert (tmp_path / "log").read_bytes() == b"Started HTTPService\n"


def test_a_host_name_is_published_as_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    fake = FakeEngine()
    begin(fake, tmp_path, monkeypatch, host="localhost").stop(0)
    assert fake.asked["ports"]["8000/tcp"][0] in ("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("Bind for 127.0.0.1:12 failed: port is already allocated", PortTaken, "12"),
        ("failed to bind host port for 127.0.0.1:11:172.17.0.2:8000/tcp: address already in use", PortTaken, "11"),
        ("invalid mount config: bind source path does not exist: /m", EnvironmentLacks, "does not see the repository"),
        ('exec: "tritonserver": executable file not found in $PATH', EnvironmentLacks, "is it one of Triton"),
        ("no space left on device", EnvironmentLacks, "no space left on device"),
    ],
)
def test_a_container_that_does_not_start_says_why_and_is_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    said: str,
    error: type[Exception],
    words: str,
) -> None:
    fake = FakeEngine(docker.errors.APIError("500", explanation=said))
    with pytest.raises(error, match=words):
        begin(fake, tmp_path, monkeypatch)
    assert fake.container.calls == ["remove"]
    assert list((home / "containers").iterdir()) == []


def test_a_pull_that_fails_halfway_is_an_error() -> None:
    class Registry:
        class images:  # noqa: N801
            @staticmethod
            def get(image: str) -> None:
                raise docker.errors.ImageNotFound("none")

        class api:  # noqa: N801
            @staticmethod
            def pull(repository: str, **options: Any) -> list[dict[str, str]]:
                assert (repository, options["tag"]) == ("nvcr.io/nvidia/tritonserver", "24.10-py3")
                return [
                    {"status": "Pulling fs layer", "id": "a"},
                    {"status": "Pull complete", "id": "a"},
                    {"error": "unauthorized"},
                ]

    said: list[str] = []
    with pytest.raises(EnvironmentLacks, match="unauthorized"):
        engine.have_image(Registry(), "nvcr.io/nvidia/tritonserver:24.10-py3", said.append)
    assert said[-1].endswith("1 of 1 layers")


def test_only_containers_whose_lock_is_free_are_swept(tmp_path: Path, home: Path) -> None:
    held = container_claim.Claim(None, 1.0)
    free, elsewhere = tmp_path / "free.lock", tmp_path / "not-here.lock"
    free.touch()
    removed: list[str] = []

    class Left:
        def __init__(self, file: Path) -> None:
            self.attrs = {"Labels": {container_claim.LABEL: str(file)}}

        def remove(self, **_: Any) -> None:
            removed.append(self.attrs["Labels"][container_claim.LABEL])

    class Engine:
        class containers:  # noqa: N801
            list = staticmethod(lambda **_: [Left(held.file), Left(free), Left(elsewhere)])

    try:
        assert container_claim.sweep(Engine()) == ["free"]
        assert removed == [str(free)]
        assert held.file.exists()
        assert not free.exists()
    finally:
        held.release()
    assert not held.file.exists()
