"""What is read of containers, and how they are told apart; with no engine."""

from __future__ import annotations

import io
import socket
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.targets import images, volume_place
from tritonforge.rollout.targets.compose import ComposeNames, environment_of
from tritonforge.rollout.targets.container_run import ContainerRun, not_started, server_words
from tritonforge.rollout.targets.containers import (
    TARGET,
    Names,
    find_ours,
    log_lines,
    private_ports,
    require_room_for_names,
    status_of,
)
from tritonforge.rollout.targets.docker_proxy import loaded, refused
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import Engine, open_engine
from tritonforge.rollout.targets.exec_stream import run_in

pytest.importorskip("docker")


def container(status: str, restarts: int = 0, **state: Any) -> Any:
    labels = {"tritonforge.fingerprint": "f", "tritonforge.release": "r", "tritonforge.image": "image@sha256:1"}
    said = {"Status": status, "StartedAt": "2026-01-02T03:04:05.678901234Z", "FinishedAt": "0001-01-01T00:00:00Z"}
    attrs = {"State": {**said, **state}, "RestartCount": restarts, "Image": "sha256:2"}
    return SimpleNamespace(labels=labels, attrs=attrs, status=status)


STATES = {
    "running": (container("running"), True, "running since 2026-01-02T03:04:05Z"),
    "came back": (container("running", 2), True, "running since 2026-01-02T03:04:05Z, restarted 2 times"),
    "crash loop": (
        container("restarting", 5, ExitCode=139),
        False,
        "restarts; it ended with 139, restarted 5 times",
    ),
    "ended": (
        container("exited", ExitCode=1, FinishedAt="2026-01-02T04:00:00.5Z"),
        False,
        "ended with 1 at 2026-01-02T04:00:00Z",
    ),
    "no memory": (
        container("exited", ExitCode=137, OOMKilled=True, FinishedAt="2026-01-02T04:00:00Z"),
        False,
        "ended with 137 (out of memory) at 2026-01-02T04:00:00Z",
    ),
    "not started": (container("created", Error="no such device"), False, "created: no such device"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_server_s_state_is_said_in_words(name: str) -> None:
    found, running, words = STATES[name]
    status = status_of(found)
    assert (status.running, status.words) == (running, words)
    assert (status.fingerprint, status.release, status.image) == ("f", "r", "image@sha256:1")


def test_a_slot_without_a_container_was_not_started() -> None:
    status = status_of(None)
    assert (status.running, status.words, status.fingerprint) == (False, "not started", None)


def client_with(found: Any) -> Any:
    return SimpleNamespace(containers=SimpleNamespace(get=lambda name: found))


def test_a_container_of_somebody_else_is_not_touched() -> None:
    foreign = SimpleNamespace(labels={TARGET: "another"})
    with pytest.raises(CheckFailed, match="tritonforge-here-blue is not of this target") as caught:
        find_ours(client_with(foreign), Names("here"), "blue")
    assert caught.value.found == "another"


@pytest.mark.parametrize("status", ["exited", "created", "dead"])
def test_a_server_that_ended_has_no_ports_and_nobody_waits_for_them(status: str) -> None:
    ended = container(status)
    ended.labels[TARGET] = "here"
    ended.attrs["NetworkSettings"] = {"Ports": {}}
    assert private_ports(client_with(ended), Names("here"), "blue", seconds=60) == {}


def test_private_ports_are_those_of_the_engine_s_machine() -> None:
    running = container("running")
    running.labels[TARGET] = "here"
    bound = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}], "8001/tcp": [{"HostPort": "49154"}]}
    running.attrs["NetworkSettings"] = {"Ports": {**bound, "8002/tcp": None}}
    assert private_ports(client_with(running), Names("here"), "blue") == {8000: 49153, 8001: 49154}


def test_names_that_no_name_server_could_tell_are_refused() -> None:
    require_room_for_names(Names("a" * 40))
    with pytest.raises(EnvironmentLacks, match="too long"):
        require_room_for_names(Names("a" * 60))


def test_compose_has_names_of_its_own() -> None:
    names = ComposeNames("here")
    assert names.container("proxy") == "tritonforge-here-haproxy-1"
    assert names.container("blue") == "tritonforge-here-blue-1"
    assert (names.volume, names.network) == ("tritonforge-here_state", "tritonforge-here_serving")
    assert names.mark == ("com.docker.compose.project", "tritonforge-here")
    environment = environment_of(Public("0.0.0.0", 1, 2, 3))
    assert environment["BIND"] == "0.0.0.0"
    assert (environment["HTTP_PORT"], environment["GRPC_PORT"], environment["METRICS_PORT"]) == ("1", "2", "3")


def test_log_lines_are_whole_though_they_come_in_pieces() -> None:
    pieces = [b"fir", b"st\r\nsecond\nthi", b"rd"]
    found = SimpleNamespace(logs=lambda **asked: iter(pieces))
    assert list(log_lines(found, 10, False)) == ["first", "second", "third"]
    assert list(log_lines(None, 10, False)) == []


def test_a_server_is_started_as_its_release_says() -> None:
    start = ServerStart("r", ("--strict-readiness=true", "--x=1"), "i", "none", "snapshots/r/models")
    assert server_words(start) == [
        "tritonserver",
        "--model-repository=/tritonforge/snapshots/r/models",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--x=1",
    ]


def test_one_that_is_changed_in_place_stands_models_that_do_not_load() -> None:
    start = ServerStart("", ("--strict-readiness=true", "--exit-on-error=true", "--x=1"), "i", "explicit", "live")
    assert server_words(start)[2:] == [
        "--model-control-mode=explicit",
        "--x=1",
        "--strict-readiness=false",
        "--exit-on-error=false",
        "--load-model=*",
    ]


def test_settings_say_only_what_is_set() -> None:
    assert ContainerRun("i").settings() == {"shm_size": "1g"}
    run = ContainerRun("i", gpus=True, runtime="nvidia", cpus=1.5, environment={"A": "b"})
    assert run.settings() == {
        "shm_size": "1g",
        "gpus": True,
        "runtime": "nvidia",
        "cpus": 1.5,
        "environment": {"A": "b"},
    }


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "NVIDIA Container Toolkit"),
        ('exec: "tritonserver": executable file not found in $PATH', "is it one of Triton?"),
        ("Bind for 127.0.0.1:8000 failed: port is already allocated", "other `ports`"),
    ],
)
def test_what_keeps_a_container_from_starting_is_explained(said: str, hint: str) -> None:
    error = not_started(said)
    assert error.found == said
    assert hint in str(error.hint)


# --- deliveries


def test_files_travel_as_a_tar_stream_of_blocks(tmp_path: Path) -> None:
    contents = {"a" * 64: b"", "b" * 64: b"x" * 511, "c" * 64: bytes(range(256)) * 9000}
    files = {}
    for digest, content in contents.items():
        files[digest] = tmp_path / digest[:3]
        files[digest].write_bytes(content)
    moved: list[int] = []
    parts = list(volume_place.packed(files, moved.append))
    assert sum(moved) == sum(map(len, contents.values()))
    assert max(map(len, parts)) <= 1 << 20, "no file is in memory whole"
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["incoming", *(f"incoming/{name}" for name in contents)]
        for member, content in zip(members[1:], contents.values(), strict=True):
            stream = archive.extractfile(member)
            assert stream is not None and stream.read() == content


def test_a_file_larger_than_tar_s_old_limit_travels(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(9 << 30)
    parts = volume_place.packed({"d" * 64: large}, lambda size: None)
    head = next(parts) + next(parts)
    member = tarfile.TarInfo.frombuf(head[512:1024], "utf-8", "strict")
    assert member.size == 9 << 30


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="cannot read the release"):
        list(volume_place.packed({"e" * 64: tmp_path / "absent"}, lambda size: None))


def test_deliveries_are_cut_into_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_place, "BATCH", 10)
    files = {}
    for name, size in (("a", 6), ("b", 4), ("c", 1), ("d", 30), ("e", 1)):
        files[name] = tmp_path / name
        files[name].write_bytes(bytes(size))
    assert [list(batch) for batch in volume_place.batches(files)] == [["a", "b"], ["c"], ["d"], ["e"]]


class Nowhere:
    """A keeper whose volume was never made."""

    there = False
    names = Names("here")
    engine = SimpleNamespace(title="of a test")


def test_a_target_that_was_never_prepared_reads_as_empty_and_takes_nothing() -> None:
    place = volume_place.VolumePlace(Nowhere())  # type: ignore[arg-type]
    said = place.call("read")
    assert (said["journal"], said["lock"], said["watching"]) == ([], None, False)
    assert place.call("missing", {"files": {"x": 3, "y": 4}}) == {"missing": ["x", "y"], "bytes": 7, "free": None}
    assert place.call("read_file", {"path": "proxy/haproxy.cfg"}) is None
    with pytest.raises(EnvironmentLacks, match="tritonforge-here of the Docker engine of a test does not exist"):
        place.call("lock", {"token": "t"})


# --- programs in containers


class Exec:
    """The engine's side of one program: ``serve`` gets the other end of the stream."""

    def __init__(self, serve: Any, code: int | None = 0) -> None:
        self.near, self.far = socket.socketpair()
        self.code = code
        self.api = self
        threading.Thread(target=serve, args=(self.far,), daemon=True).start()

    def exec_create(self, *words: Any, **more: Any) -> dict[str, str]:
        return {"Id": "e"}

    def exec_start(self, made: str, socket: bool) -> Any:
        return SimpleNamespace(_sock=self.near, close=self.near.close)

    def exec_inspect(self, made: str) -> dict[str, Any]:
        return {"ExitCode": self.code}


def frame(kind: int, data: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_output_and_errors_are_told_apart_and_input_arrives() -> None:
    def serve(far: socket.socket) -> None:
        line = far.makefile("rb").readline()
        sent = frame(1, line[:5]) + frame(2, b"careful") + frame(1, line[5:])
        for start in range(0, len(sent), 7):
            far.sendall(sent[start : start + 7])
        far.close()

    ran = run_in(Exec(serve), "c", ["cat"], b"x" * 300_000 + b"\n", 10)
    assert (ran.stdout, ran.stderr, ran.code) == (b"x" * 300_000 + b"\n", "careful", 0)


def test_a_program_that_does_not_end_is_not_waited_for_forever() -> None:
    with pytest.raises(EnvironmentLacks, match=r"`sleep` in c took longer than 0\.2 s"):
        run_in(Exec(lambda far: far.recv(1) and threading.Event().wait(5)), "c", ["sleep"], b"\n", 0.2)


def test_a_stream_that_is_cut_ends_what_was_heard() -> None:
    def serve(far: socket.socket) -> None:
        far.sendall(frame(1, b"whole") + frame(1, b"cut off")[:10])
        far.close()

    ran = run_in(Exec(serve, code=137), "c", ["x"], b"", 10)
    assert (ran.stdout, ran.code) == (b"whole", 137)


# --- engines


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:2375", "tcp://192.0.2.1:2376"])
def test_an_engine_elsewhere_is_reached_over_ssh_only(address: str) -> None:
    with pytest.raises(EnvironmentLacks, match="private ports") as caught, open_engine(address):
        pass
    assert "ssh://USER@192.0.2.1" in str(caught.value.hint)


@pytest.mark.parametrize("address", ["ssh://me@host/run/docker.sock", "ssh://me:secret@host"])
def test_an_address_over_ssh_is_its_host_alone(address: str) -> None:
    with pytest.raises(UsageError) as caught, open_engine(address):
        pass
    assert "secret" not in str(caught.value)


def test_a_full_disk_of_the_engine_is_called_that() -> None:
    import docker.errors

    engine = Engine(None, "of a test")
    with pytest.raises(EnvironmentLacks, match="the disk of the Docker engine of a test is full"), engine.calls():
        raise docker.errors.APIError("x", explanation="write /models/x: no space left on device")
    with pytest.raises(EnvironmentLacks, match="the connection to the target was lost") as caught, engine.calls():
        raise ConnectionResetError("gone")
    assert "--resume" in str(caught.value.hint)


# --- images and the proxy's words


class Local:
    """An engine with one image."""

    def __init__(self, *digests: str) -> None:
        self.images = self
        self.found = SimpleNamespace(id="sha256:" + "1" * 64, attrs={"RepoDigests": list(digests)})

    def get(self, name: str) -> Any:
        return self.found


@pytest.mark.parametrize(
    ("asked", "digests", "resolved"),
    [
        ("tritonforge-test/x:1", [], "sha256:" + "1" * 64),
        ("nvcr.io/nvidia/tritonserver:24.10-py3", ["nvcr.io/nvidia/tritonserver@sha256:2"], "same"),
        ("docker.io/library/haproxy:3.0", ["haproxy@sha256:2"], "same"),
        ("localhost:5000/x:1", ["another/x@sha256:3", "localhost:5000/x@sha256:2"], "localhost:5000/x@sha256:2"),
        ("mine:1", ["another@sha256:3"], "sha256:" + "1" * 64),
        ("haproxy@sha256:5", ["haproxy@sha256:5"], "same"),
    ],
)
def test_an_image_is_known_by_its_digest_where_it_has_one(asked: str, digests: list[str], resolved: str) -> None:
    assert images.resolve(Local(*digests), asked) == (digests[0] if resolved == "same" else resolved)


@pytest.mark.parametrize(
    ("log", "taken"),
    [
        (b"Loading success.\n", False),
        (b"Loading success.\nReloading HAProxy\n", False),
        (b"Loading success.\nReloading HAProxy\nNew worker\nLoading success.\n", True),
        (b"Reloading HAProxy\nLoading success.\nReloading HAProxy\n[ALERT] no\n", False),
    ],
)
def test_a_reload_counts_when_the_master_says_so(log: bytes, taken: bool) -> None:
    assert loaded(SimpleNamespace(logs=lambda tail: log), seconds=0.15) is taken


def test_of_what_the_proxy_refuses_the_alerts_are_shown() -> None:
    said = "[NOTICE] version\n[ALERT] (1) : config : unknown keyword 'x'\n[WARNING] meh\n"
    assert refused(said).details == ("[ALERT] (1) : config : unknown keyword 'x'",)
    assert refused("something else\n").details == ("something else",)
