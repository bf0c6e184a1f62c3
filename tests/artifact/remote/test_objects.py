"""What a store holds is read and written the same way in a folder and in S3; what is wrong is said in words."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import remote_faults
from s3_server import Bucket

from artifact.remote.conftest import folder_objects
from tritonforge.artifact.remote.address import parse_address
from tritonforge.artifact.remote.objects import PART, PIECE, Objects, open_objects
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def objects(request: pytest.FixtureRequest, team: Path) -> Objects:
    if request.param == "folder":
        return folder_objects(team)
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_objects(parse_address(f"{bucket.url}/team"), timeout_s=20)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetched(objects: Objects, path: str, size: int) -> tuple[int | None, bytes]:
    pieces: list[bytes] = []
    count = objects.download(path, size, pieces.append)
    return count, b"".join(pieces)


@pytest.mark.parametrize("data", [b"", b"x", b"some bytes"])
def test_what_is_written_is_read(objects: Objects, data: bytes) -> None:
    assert objects.read("a/b/c.json") is None
    assert objects.size("a/b/c.json") is None
    objects.write("a/b/c.json", data)
    assert objects.read("a/b/c.json") == data
    assert objects.size("a/b/c.json") == len(data)
    assert objects.names("a/b") == ["c.json"]
    assert objects.names("none") == []
    objects.write("a/b/c.json", b"other")
    assert objects.read("a/b/c.json") == b"other"


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, PART * 3 + 17])
def test_a_file_goes_there_and_back_in_pieces(objects: Objects, tmp_path: Path, size: int) -> None:
    data = bytes(index * 31 % 251 for index in range(1 << 10)) * (size // 1024 + 1)
    data = data[:size]
    file = tmp_path / "file"
    file.write_bytes(data)
    moved: list[int] = []
    objects.send("blobs/x", file, sha256(data), moved.append)
    assert sum(moved) == size
    assert fetched(objects, "blobs/x", size) == (size, data)
    assert fetched(objects, "blobs/none", size) == (None, b"")
    if size > 1:
        count, _ = fetched(objects, "blobs/x", size - 1)
        assert count is not None
        assert count in (size - 1, size), "one byte more than there should be, or what there should be"
    short = fetched(objects, "blobs/x", size + 10)
    assert short == (size, data), "what is shorter than it should be ends there"


@pytest.mark.parametrize("size", [10, PART * 3])
def test_a_file_that_changed_is_not_sent(objects: Objects, tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    with pytest.raises(CheckFailed, match="is damaged here, and is not sent"):
        objects.send("blobs/x", file, sha256(b"y" * size))
    assert objects.size("blobs/x") is None
    assert objects.names("blobs") == []


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path, team: Path) -> None:
    objects = folder_objects(tmp_path / "missing")
    for act in (lambda: objects.read("a"), lambda: objects.write("a", b"x")):
        with pytest.raises(EnvironmentLacks, match="missing does not exist"):
            act()
    assert not (tmp_path / "missing").exists()


@pytest.mark.slow
def test_a_bucket_that_is_missing_is_said(bucket: Bucket) -> None:
    objects = open_objects(parse_address("s3://no-such-bucket/team"), timeout_s=20)
    for act in (lambda: objects.read("a"), lambda: objects.write("a", b"x")):
        with pytest.raises(EnvironmentLacks, match="s3://no-such-bucket/team does not exist"):
            act()


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda objects, file: objects.read("a"), id="read"),
        pytest.param(lambda objects, file: objects.size("a"), id="size", marks=pytest.mark.slow),
        pytest.param(lambda objects, file: objects.write("a", b"x"), id="write", marks=pytest.mark.slow),
        pytest.param(
            lambda objects, file: objects.download("a", 5, lambda piece: None), id="download", marks=pytest.mark.slow
        ),
        pytest.param(lambda objects, file: objects.send("a", file, sha256(b"x")), id="send"),
    ],
)
def test_a_server_that_never_answers_is_waited_for_no_longer_than_asked(
    bucket: Bucket, tmp_path: Path, act: Callable[[Objects, Path], object]
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with remote_faults.silent_server() as endpoint:
        objects = open_objects(parse_address("s3://b/team"), timeout_s=1.0, options={"endpoint_url": endpoint})
        since = time.monotonic()
        with pytest.raises(EnvironmentLacks, match="did not answer within 1 s"):
            act(objects, tmp_path / "file")
        assert 0.9 < time.monotonic() - since < 3


def test_no_message_has_a_secret_in_it(bucket: Bucket) -> None:
    options = {"endpoint_url": remote_faults.closed_port(), "key": "hunter2", "secret": "hunter3"}
    objects = open_objects(
        parse_address("s3://hunter2-bucket/x"), timeout_s=20, options=options, secrets=["hunter2", "hunter3"]
    )
    with pytest.raises(EnvironmentLacks) as raised:
        objects.read("a")
    assert "cannot be used" in str(raised.value)
    assert "hunter3" not in str(raised.value)
    assert "hunter2" not in str(raised.value.found)


@pytest.mark.slow
def test_refusals_say_what_right_is_missing(bucket: Bucket, tmp_path: Path) -> None:
    with remote_faults.in_front_of(bucket.endpoint, refuse=("PUT", "POST")) as (endpoint, _):
        objects = open_objects(parse_address(bucket.url), timeout_s=20, options={"endpoint_url": endpoint})
        assert objects.read("a") is None
        with pytest.raises(EnvironmentLacks, match="refuses to write") as raised:
            objects.write("a", b"x")
        assert isinstance(raised.value.__cause__, PermissionError)
        assert "s3:ListBucket" in (raised.value.hint or "")


def test_options_that_are_none_are_refused(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="options of the remote store are not taken"):
        open_objects(parse_address("s3://b"), timeout_s=1, options={"config_kwargs": 5})
    with pytest.raises(EnvironmentLacks, match="no_such"):
        open_objects(parse_address("s3://b"), timeout_s=20, options={"config_kwargs": {"no_such": 1}}).read("a")


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch, team: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(EnvironmentLacks, match="gcsfs is not installed"):
        open_objects(parse_address("gs://b"), timeout_s=1)
    with pytest.raises(EnvironmentLacks) as raised:
        open_objects(parse_address("az://b"), timeout_s=1)
    assert raised.value.hint == "pip install 'adlfs'"
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(EnvironmentLacks) as raised:
        open_objects(parse_address("s3://b"), timeout_s=1)
    assert raised.value.hint == "pip install 'tritonforge[remote]'"
