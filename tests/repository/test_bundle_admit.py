"""Import: a release is there whole, or nothing is."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from repository.making_bundle import FILES, IMAGE, PLATFORM, make_bundle, make_release, packed, unpacked
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.repository import bundle_admit
from tritonforge.repository.bundle import export_bundle
from tritonforge.repository.bundle_admit import admit_bundle
from tritonforge.repository.release import PlatformFolder


@pytest.fixture
def folder(tmp_path: Path) -> PlatformFolder:
    """The releases of another site."""
    return PlatformFolder(tmp_path / "site" / "build" / "local")


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def names(folder: PlatformFolder) -> list[str]:
    return sorted(path.name for path in folder.releases.iterdir()) if folder.releases.is_dir() else []


def test_the_release_stands_there_as_it_was_built(tmp_path: Path, folder: PlatformFolder) -> None:
    original = make_release(tmp_path / "from")
    admitted = admit_bundle(make_bundle(tmp_path), folder, PLATFORM)
    assert admitted.new
    assert admitted.release.folder == folder.releases / original.digest
    assert contents(admitted.release.folder) == contents(original.folder)
    assert admitted.release.is_whole()
    assert names(folder) == [original.digest]
    assert folder.current() is None, "nothing becomes current by an import"
    modes = {path.stat().st_mode & 0o777 for path in admitted.release.folder.rglob("*") if path.is_file()}
    assert modes == {0o444}
    assert folder.find(original.digest[:8]).digest == original.digest


def test_a_release_that_is_there_already_is_left_alone(tmp_path: Path, folder: PlatformFolder) -> None:
    file = make_bundle(tmp_path)
    first = admit_bundle(file, folder, PLATFORM).release
    model = first.models_folder / "net" / "1" / "model.onnx"
    before = model.stat()
    again = admit_bundle(file, folder, PLATFORM)
    assert not again.new
    assert (model.stat().st_ino, model.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert names(folder) == [first.digest]


def test_a_release_that_is_there_damaged_is_replaced(tmp_path: Path, folder: PlatformFolder) -> None:
    file = make_bundle(tmp_path)
    first = admit_bundle(file, folder, PLATFORM).release
    model = first.models_folder / "net" / "1" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"WEIGHTS" * 1000)
    assert admit_bundle(file, folder, PLATFORM).new
    assert model.read_bytes() == FILES["net/1/model.onnx"]
    assert names(folder) == [first.digest]


def test_a_bad_bundle_leaves_nothing(tmp_path: Path, folder: PlatformFolder) -> None:
    members = unpacked(make_bundle(tmp_path))
    members["models/words/2/model.py"] = b"class TritonPythonModel: evil\n"
    with pytest.raises(CheckFailed, match=r"models/words/2/model\.py: a file is damaged"):
        admit_bundle(packed(tmp_path / "bad.tar.zst", members), folder, PLATFORM)
    assert names(folder) == []


@pytest.mark.parametrize(("facet", "value"), [("triton", "24.05"), ("processor", "aarch64"), ("gpu", "sm_80")])
def test_a_bundle_for_another_platform_is_refused(
    tmp_path: Path, folder: PlatformFolder, facet: str, value: str
) -> None:
    with pytest.raises(UsageError, match="another platform") as caught:
        admit_bundle(make_bundle(tmp_path), folder, {**PLATFORM, facet: value})
    assert f"{facet} {value}" in str(caught.value)
    assert names(folder) == []


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, folder: PlatformFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_bundle(tmp_path)
    status = namedtuple("status", "f_bavail f_frsize")
    monkeypatch.setattr(bundle_admit.os, "statvfs", lambda path: status(1, 4096))
    with pytest.raises(EnvironmentLacks, match="no room for the release"):
        admit_bundle(file, folder, PLATFORM)
    assert names(folder) == []


@pytest.mark.parametrize("point", ["import.stage", "import.staged", "import.rename"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, folder: PlatformFolder, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    file = make_bundle(tmp_path)
    monkeypatch.setenv("TRITONFORGE_FAULT", f"{point}:enospc")
    with pytest.raises(EnvironmentLacks, match="cannot import the release: No space left on device"):
        admit_bundle(file, folder, PLATFORM)
    assert names(folder) == []


def test_what_a_killed_import_left_goes_with_the_next(tmp_path: Path, folder: PlatformFolder) -> None:
    (folder.releases / ".staging-1-x").mkdir(parents=True)
    (folder.releases / ".staging-1-x" / "half").write_text("half")
    release = admit_bundle(make_bundle(tmp_path), folder, PLATFORM).release
    assert names(folder) == [release.digest]


def test_an_imported_release_counts_among_the_newest_when_old_ones_are_deleted(
    tmp_path: Path, folder: PlatformFolder
) -> None:
    old = make_release(folder.root)
    os.utime(old.folder, (1_000_000_000, 1_000_000_000))
    newer = make_release(tmp_path / "from", files={**FILES, "net/1/model.onnx": b"newer"})
    file = export_bundle(newer, IMAGE, tmp_path / "b.tar.zst").file
    imported = admit_bundle(file, folder, PLATFORM).release
    assert folder.prune(1) == [old.digest]
    assert names(folder) == [imported.digest]
