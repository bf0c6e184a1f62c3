from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton import ContainerServer, Launch, container
from tritonforge.triton.ports import Ports


def test_without_an_engine_the_other_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("docker")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(container, "_SOCKET", tmp_path / "docker.sock")
    with pytest.raises(EnvironmentLacks, match="there is no Docker engine here"):
        container.start_container(ContainerServer("image"), Launch(tmp_path), Ports(1, 2, 3), tmp_path / "log")


def test_an_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("docker")
    server = ContainerServer("image", docker_host="tcp://127.0.0.1:9")
    with pytest.raises(EnvironmentLacks, match=r"tcp://127\.0\.0\.1:9 does not answer"):
        container.start_container(server, Launch(tmp_path), Ports(1, 2, 3), tmp_path / "log")


class FakeContainer:
    def __init__(self) -> None:
        self.attrs: dict[str, Any] = {"State": {"Status": "running", "ExitCode": 0}}
        self.calls: list[str] = []

    def logs(self, **_: Any) -> list[bytes]:
        return [b"Started HTTPService\n"]

    def reload(self) -> None:
        self.calls.append("reload")

    def stop(self, timeout: int) -> None:
        self.calls.append(f"stop {timeout}")

    def remove(self, **_: Any) -> None:
        self.calls.append("remove")


def test_the_repository_is_mounted_read_only_and_ports_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("docker")
    fake, asked = FakeContainer(), {}

    class Engine:
        class images:  # noqa: N801
            get = staticmethod(lambda image: image)

        class containers:  # noqa: N801
            @staticmethod
            def run(image: str, words: list[str], **options: Any) -> FakeContainer:
                asked.update(options, image=image, words=words)
                return fake

    monkeypatch.setattr(container, "_engine", lambda _: Engine())
    log = tmp_path / "log"
    launch = Launch(tmp_path, control="explicit", load=("m",))
    process = container.start_container(ContainerServer("triton:1"), launch, Ports(11, 12, 13), log)
    assert asked["volumes"][str(tmp_path)] == {"bind": "/models", "mode": "ro"}
    assert asked["ports"] == {
        "8000/tcp": ("127.0.0.1", 11),
        "8001/tcp": ("127.0.0.1", 12),
        "8002/tcp": ("127.0.0.1", 13),
    }
    assert asked["words"][0] == "tritonserver"
    assert {"--model-repository=/models", "--load-model=m", "--http-port=8000"} <= set(asked["words"])
    assert process.poll() is None
    fake.attrs["State"] = {"Status": "exited", "ExitCode": 1}
    assert process.poll() == 1
    process.stop(3.5)
    process.stop(3.5)
    assert fake.calls[-2:] == ["stop 3", "remove"]
    assert log.read_bytes() == b"Started HTTPService\n"
