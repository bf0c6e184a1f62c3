"""Only what is not there travels, and nothing half is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.rollout.delivery import SPARE, deliver
from tritonforge.rollout.host import Bundle
from tritonforge.rollout.place import LocalPlace


class Counting(LocalPlace):
    """A place that says what was sent, and how much is free where a test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.sent: list[str] = []
        self.free: int | None = None
        self.copies = False

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        said = super().call(operation, arguments, timeout=timeout)
        return {**said, "free": self.free} if operation == "missing" and self.free is not None else said

    def send(self, files: Mapping[str, Path], progress: Callable[[int], None]) -> None:
        self.sent += sorted(str(path) for path in files.values())
        super().send(files, progress)


@pytest.fixture
def place(tmp_path: Path) -> Counting:
    place = Counting(tmp_path / "target")
    place.call("lock", {"token": "t", "holder": {"id": "1"}})
    return place


def bundle(folder: Path, release: str, files: Mapping[str, bytes], here: bool = True) -> Bundle:
    said = {}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        said[path] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return Bundle(release, folder if here else None, said, ["models/empty/1"], (), False, {})


def quiet(text: str) -> None:
    pass


def test_the_first_time_all_of_it_travels(place: Counting, tmp_path: Path) -> None:
    files = {"models/a/1/m": b"mm", "models/a/config.pbtxt": b"c", "models/b/1/m": b"mm"}
    said = deliver(place, bundle(tmp_path / "r", "one", files), "t", quiet)
    assert said == {"bytes": 3, "files": 2, "new": True}  # equal files are one
    snapshot = place.root / "snapshots" / "one"
    assert {path: (snapshot / path).read_bytes() for path in files} == files
    assert (snapshot / "models/empty/1").is_dir()


def test_then_only_what_changed(place: Counting, tmp_path: Path) -> None:
    files = {"models/a/1/m": b"large and the same" * 1000, "models/b/1/m": b"old"}
    deliver(place, bundle(tmp_path / "one", "one", files), "t", quiet)
    place.sent.clear()
    said = deliver(place, bundle(tmp_path / "two", "two", {**files, "models/b/1/m": b"new!"}), "t", quiet)
    assert said == {"bytes": 4, "files": 1, "new": True}
    assert place.sent == [str(tmp_path / "two/models/b/1/m")]
    place.sent.clear()
    assert deliver(place, bundle(tmp_path / "two", "two", {**files, "models/b/1/m": b"new!"}), "t", quiet) == {
        "bytes": 0,
        "files": 0,
        "new": False,
    }
    assert place.sent == []


def test_a_release_that_is_only_there_needs_nothing_from_here(place: Counting, tmp_path: Path) -> None:
    files = {"models/a": b"a"}
    deliver(place, bundle(tmp_path / "r", "one", files), "t", quiet)
    there = bundle(tmp_path / "r", "one", files, here=False)
    assert deliver(place, there, "t", quiet)["bytes"] == 0
    with pytest.raises(UsageError, match="neither here nor whole on the target"):
        deliver(place, bundle(tmp_path / "q", "two", {"models/a": b"other"}, here=False), "t", quiet)


def test_without_room_nothing_is_sent(place: Counting, tmp_path: Path) -> None:
    place.free = SPARE + 2
    with pytest.raises(EnvironmentLacks, match="has no room for the release") as caught:
        deliver(place, bundle(tmp_path / "r", "one", {"models/a": b"aaa"}), "t", quiet)
    assert "free some space there" in str(caught.value.hint)
    assert place.sent == []
    place.free = SPARE + 3
    deliver(place, bundle(tmp_path / "r", "one", {"models/a": b"aaa"}), "t", quiet)


def test_a_source_that_was_damaged_is_named_and_not_taken(place: Counting, tmp_path: Path) -> None:
    broken = bundle(tmp_path / "r", "one", {"models/a": b"aaa", "models/b": b"b"})
    (tmp_path / "r/models/a").write_bytes(b"zzz")
    with pytest.raises(CheckFailed, match="1 files did not arrive as the release names them") as caught:
        deliver(place, broken, "t", quiet)
    assert caught.value.details == (str(tmp_path / "r/models/a"),)
    assert not (place.root / "snapshots").exists()
    (tmp_path / "r/models/a").write_bytes(b"aaa")
    assert deliver(place, broken, "t", quiet)["new"]


def test_a_source_that_is_gone_is_named(place: Counting, tmp_path: Path) -> None:
    broken = bundle(tmp_path / "r", "one", {"models/a": b"aaa"})
    (tmp_path / "r/models/a").unlink()
    with pytest.raises(CheckFailed, match=r"the release lacks .*models/a"):
        deliver(place, broken, "t", quiet)


@pytest.mark.parametrize("path", ["../a", "models/../../a"])
def test_no_path_of_a_release_leaves_it(place: Counting, tmp_path: Path, path: str) -> None:
    (tmp_path / "a").write_bytes(b"a")
    said = {path: {"sha256": hashlib.sha256(b"a").hexdigest(), "size": 1}}
    with pytest.raises(Exception, match=r"leaves|outside|out of"):
        deliver(place, Bundle("one", tmp_path / "r", said, [], (), False, {}), "t", quiet)
    assert not (place.root / "snapshots").exists()


def test_progress_is_told(place: Counting, tmp_path: Path) -> None:
    words: list[str] = []
    deliver(place, bundle(tmp_path / "r", "one", {"models/a": bytes(2_000_000)}), "t", words.append)
    assert words == ["sending 2.0 MB in 1 files", "sending 2.0 of 2.0 MB"]
