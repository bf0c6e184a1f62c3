"""The Docker engine of another machine over SSH: a real engine behind a real sshd on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rollout.jetson.laid_out import lay_out

from testbed.sshd import Sshd, serve
from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.jetson.board import read_board
from tritonforge.rollout.jetson.images import choose
from tritonforge.rollout.ssh import SshHost
from tritonforge.rollout.ssh_docker import docker_host
from tritonforge.triton.engine import connect

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def sshd(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A machine whose engine is the test bed's."""
    environment = {"DOCKER_HOST": os.environ["DOCKER_HOST"], "PATH": os.environ["PATH"]}
    with serve(tmp_path_factory.mktemp("sshd") / "s", environment=environment) as server:
        yield server


@pytest.fixture
def host(sshd: Sshd) -> Iterator[SshHost]:
    with SshHost(sshd.address, sshd.client) as host:
        yield host


def test_the_docker_sdk_reaches_it_by_a_unix_address(host: SshHost, engine: Any) -> None:
    with docker_host(host) as address, closing(connect(address)) as client:
        assert address.startswith("unix:///")
        assert client.info()["ID"] == engine.info()["ID"]


def test_a_container_runs_there_and_its_output_comes_back(host: SshHost, base: str) -> None:
    with docker_host(host) as address, closing(connect(address)) as client:
        assert client.containers.run(base, ["echo", "over ssh"], remove=True) == b"over ssh\n"


def test_files_go_into_a_volume_through_the_tunnel(host: SshHost, base: str, tmp_path: Path) -> None:
    import io
    import tarfile

    data = os.urandom(3_000_000)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("model.bin")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    with docker_host(host) as address, closing(connect(address)) as client:
        container = client.containers.create(base, ["true"], name="tritonforge-test-ssh")
        try:
            assert container.put_archive("/", packed.getvalue())
            stream, about = container.get_archive("/model.bin")
            back = io.BytesIO(b"".join(stream))
        finally:
            container.remove(force=True, v=True)
    assert about["size"] == len(data)
    with tarfile.open(fileobj=back) as archive:
        member = archive.extractfile("model.bin")
        assert member is not None and member.read() == data


def test_after_a_cut_the_engine_is_reached_again_at_the_same_address(sshd: Sshd, host: SshHost) -> None:
    with docker_host(host) as address:
        with closing(connect(address)) as client:
            assert client.ping()
            sshd.cut()
            with pytest.raises(Exception):  # noqa: B017 - whatever the SDK makes of a broken connection
                client.ping()
                client.ping()
        host.run(["true"])
        with closing(connect(address)) as client:
            assert client.ping()


def test_the_board_s_engine_is_the_one_that_answers_and_the_image_follows(
    host: SshHost, engine: Any, tmp_path: Path
) -> None:
    board = read_board(host, root=str(lay_out("orin-nano-jp6.2", tmp_path / "board", real=("docker", "df"))))
    assert board.engine.version == engine.version()["Version"]
    assert board.engine.root == engine.info()["DockerRootDir"]
    assert board.disk_free is not None and board.disk_free > 0
    runtimes = set(engine.info()["Runtimes"])
    assert set(board.engine.runtimes) == runtimes
    if "nvidia" in runtimes:
        assert choose(board).image.endswith("26.02-py3-igpu")
    else:
        with pytest.raises(EnvironmentLacks, match="no runtime 'nvidia'"):
            choose(board)
