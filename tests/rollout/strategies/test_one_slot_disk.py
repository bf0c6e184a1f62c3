"""What the agent does to a live folder on disk: whole at every instant, and seen by Triton as new."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tritonforge.rollout.agent import agent

TOKEN = "t"


class Killed(BaseException):
    """The agent ended in the middle."""


class Disk:
    """A target's folder with blobs, whose lock is held."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        agent.op_lock(str(root), {"token": TOKEN, "holder": {"id": "test"}})
        self.do({"do": "make"})

    def file(self, text: str) -> dict[str, Any]:
        """A blob, as a release names it."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = Path(agent.blob_path(str(self.root), digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return {"sha256": digest, "size": len(text)}

    def do(self, *ops: dict[str, Any], offline: bool = True) -> None:
        agent.op_apply(str(self.root), {"token": TOKEN, "ops": list(ops), "seconds": 5, "offline": offline})

    def put(self, folder: str, config: str, **versions: str) -> dict[str, Any]:
        """An operation: one file a version, and one beside them that says the config."""
        return {
            "do": "put",
            "folder": folder,
            "kind": "model",
            "config": config,
            "files": {"labels.txt": self.file(f"labels of {config}")},
            "versions": {number[1:]: {"model.py": self.file(text)} for number, text in versions.items()},
        }

    def shown(self) -> dict[str, str]:
        """Every file of the live folder with its text."""
        live = self.root / "live"
        return {path.relative_to(live).as_posix(): path.read_text() for path in live.rglob("*") if path.is_file()}

    def newest(self, folder: str) -> int:
        """What Triton compares: the newest time in a model's folder."""
        top = self.root / "live" / folder
        stats = [path.stat() for path in (top, *top.rglob("*"))]
        return max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "root")


def test_a_live_file_shares_no_inode_with_anything(disk: Disk) -> None:
    operation = disk.put("a", "one", v1="first")
    disk.do(operation)
    file = disk.root / "live" / "a" / "1" / "model.py"
    blob = Path(agent.blob_path(str(disk.root), operation["versions"]["1"]["model.py"]["sha256"]))
    assert file.stat().st_ino != blob.stat().st_ino
    assert file.stat().st_nlink == 1
    assert disk.shown() == {"a/1/model.py": "first", "a/config.pbtxt": "one", "a/labels.txt": "labels of one"}


def test_a_new_version_comes_beside_the_old_one_and_goes_again(disk: Disk) -> None:
    first, second = disk.put("a", "one", v1="first"), disk.put("a", "two", v2="second")
    disk.do(first, second)
    assert disk.shown()["a/1/model.py"] == "first"
    assert disk.shown()["a/config.pbtxt"] == "two"
    disk.do(first, {"do": "drop", "folder": "a", "versions": ["2"]})
    assert disk.shown() == {"a/1/model.py": "first", "a/config.pbtxt": "one", "a/labels.txt": "labels of one"}
    disk.do({"do": "drop", "folder": "a", "versions": None}, {"do": "sweep"})
    assert disk.shown() == {}
    assert not (disk.root / "live-staging").exists()


def test_what_is_there_already_is_not_touched(disk: Disk) -> None:
    operation = disk.put("a", "one", v1="first")
    disk.do(operation)
    before = disk.newest("a")
    disk.do(operation, operation)
    assert disk.newest("a") == before


@pytest.mark.parametrize("change", ["config", "version", "file"])
def test_triton_sees_every_change_though_the_clock_was_set_back(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    disk.do(disk.put("a", "one", v1="first"))
    ahead = agent.time.time() + 86400
    for path in [disk.root / "live" / "a", *(disk.root / "live" / "a").rglob("*")]:
        os.utime(path, (ahead, ahead))
    before = disk.newest("a")
    monkeypatch.setattr(agent.time, "time", lambda: 1_000_000.0)
    operation = disk.put("a", "two" if change == "config" else "one", v1="first")
    if change == "version":
        operation["versions"]["2"] = {"model.py": disk.file("second")}
    if change == "file":
        operation["files"]["labels.txt"] = disk.file("others")
    disk.do(operation)
    assert disk.newest("a") > before
    if change == "file":
        # Triton compares the newest file but configs and versions on its own (core ``ModelTimestamp``).
        assert (disk.root / "live" / "a" / "labels.txt").stat().st_mtime_ns > before


def test_a_candidates_files_are_renamed_and_not_copied_again(disk: Disk) -> None:
    disk.do(disk.put("a", "one", v1="first"), disk.put("a--candidate", "new", v2="second"))
    inode = (disk.root / "live" / "a--candidate" / "2" / "model.py").stat().st_ino
    disk.do({**disk.put("a", "two", v2="second"), "take": "a--candidate"})
    assert (disk.root / "live" / "a" / "2" / "model.py").stat().st_ino == inode


def test_a_kill_at_every_rename_leaves_whole_versions_only_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ways(disk: Disk) -> list[dict[str, Any]]:
        first, second = disk.put("a", "one", v1="first"), disk.put("a", "two", v2="second")
        stage = {"do": "stage", "folder": "a", "versions": second["versions"]}
        return [
            first,
            stage,
            disk.put("a--candidate", "c", v2="second"),
            {**second, "take": "a--candidate"},
            {"do": "drop", "folder": "a--candidate", "versions": None},
            {"do": "drop", "folder": "a", "versions": ["1"]},
            first,
            {"do": "drop", "folder": "a", "versions": ["2"]},
        ]

    whole = Disk(tmp_path / "whole")
    whole.do(*ways(whole))
    kills = 0
    while True:
        disk = Disk(tmp_path / f"kill-{kills}")
        with monkeypatch.context() as patch:
            count = iter(range(kills + 1))
            patch.setattr(agent.os, "rename", dying(os.rename, count))
            patch.setattr(agent.os, "replace", dying(os.replace, count))
            try:
                disk.do(*ways(disk))
                break
            except Killed:
                kills += 1
        for path, text in disk.shown().items():
            name = path.split("/", 1)[1]
            assert name in ("config.pbtxt", "labels.txt", "1/model.py", "2/model.py"), f"{path} is no part of a model"
            assert text in ("one", "two", "c", "first", "second", "labels of one", "labels of two", "labels of c")
        disk.do(*ways(disk))
        assert disk.shown() == whole.shown()
        assert agent.read_live(str(disk.root))["folders"] == agent.read_live(str(whole.root))["folders"]
    assert kills > 30


def dying(real: Callable[..., None], count: Any) -> Callable[..., None]:
    """A rename that is the last thing that an agent does once the count is over: before it, or after it."""

    def rename(source: str, target: str) -> None:
        left = next(count, None)
        if left is None:
            raise Killed
        real(source, target)

    return rename


def test_somebody_elses_model_is_left_alone(disk: Disk) -> None:
    (disk.root / "live" / "theirs" / "1").mkdir(parents=True)
    with pytest.raises(agent.Refused, match="tritonforge did not put it there"):
        disk.do(disk.put("theirs", "mine", v1="first"))
    disk.do({"do": "drop", "folder": "theirs", "versions": None})
    assert (disk.root / "live" / "theirs" / "1").is_dir()
    assert agent.op_live(str(disk.root), {})["foreign"] == ["theirs"]


def test_a_version_is_never_rewritten(disk: Disk) -> None:
    disk.do(disk.put("a", "one", v1="first"))
    with pytest.raises(agent.Refused, match="version 1 of 'a' stands for other files"):
        disk.do(disk.put("a", "one", v1="another text"))


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", ""])
def test_no_name_leaves_the_live_folder(disk: Disk, name: str) -> None:
    with pytest.raises(agent.Refused, match="no name of a model"):
        disk.do(disk.put(name, "one", v1="first"))


def test_whoever_lost_the_lock_changes_nothing(disk: Disk) -> None:
    agent.op_unlock(str(disk.root), {"instead": "test"})
    with pytest.raises(agent.Refused, match="lock"):
        disk.do(disk.put("a", "one", v1="first"))
    assert disk.shown() == {}


@pytest.mark.parametrize(
    ("wanted", "served", "good"),
    [
        ({"max_batch_size": 8}, {"max_batch_size": 8, "name": "a"}, True),
        ({"dims": ["-1"]}, {"dims": [-1]}, True),
        ({"dims": ["1"]}, {"dims": [1, 1]}, False),
        ({"group": {"count": 2}}, {"group": {"count": 1}}, False),
        ({"policy": {"specific": {"versions": ["2"]}}}, {"policy": {"latest": {}}}, False),
        ({"on": True}, {"on": False}, False),
        ({"share": 0.1}, {"share": 0.10000000149}, True),
        ({"arms": {"string_value": "[1]"}}, {"arms": {"string_value": "[2]"}}, False),
    ],
)
def test_a_server_serves_a_config_when_it_says_all_of_it(wanted: Any, served: Any, good: bool) -> None:
    assert agent.agrees(wanted, served) is good
