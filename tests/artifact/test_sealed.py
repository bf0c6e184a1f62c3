from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tritonforge.artifact import store as store_module
from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.sealed import KnownFiles
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed

KEY = "ab" * 32
DIGEST = digest_bytes(b"as it was")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"as it was")
    return path


def overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.write(b"otherwise")


def write_through_a_mapping(path: Path) -> None:
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[:9] = b"otherwise"
        mapped.flush()


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"otherwise")


def test_a_link_to_a_known_file_is_known(file: Path, tmp_path: Path) -> None:
    known = KnownFiles()
    known.add(file, DIGEST)
    os.link(file, tmp_path / "link")
    assert known.digest(tmp_path / "link") == DIGEST


@pytest.mark.parametrize("change", [overwrite, write_through_a_mapping, replace])
def test_a_file_that_was_written_is_not_known(file: Path, change: Callable[[Path], None]) -> None:
    known = KnownFiles()
    known.add(file, DIGEST)
    change(file)
    assert file.read_bytes() == b"otherwise"
    assert known.digest(file) is None


@pytest.mark.parametrize("change", [overwrite, write_through_a_mapping])
def test_a_users_own_file_may_not_change_until_it_is_taken(
    store: LocalStore, file: Path, change: Callable[[Path], None]
) -> None:
    os.utime(file, (1, 1))
    known = KnownFiles()
    known.add(file, DIGEST, theirs=Path("/home/me/file"))
    assert file.stat().st_mtime == 1, "it has no other time until it is the store's"
    with store.staging() as staged:
        os.link(file, staged / "weights.bin")
        change(staged / "weights.bin")
        with pytest.raises(CheckFailed, match="changed while it was built") as error:
            store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, known=known)
    assert error.value.place is not None
    assert error.value.place.file == Path("/home/me/file")
    assert store.record(KEY) is None


def test_a_users_own_file_takes_the_place_of_a_copy(store: LocalStore, file: Path) -> None:
    for theirs in (None, file):
        known = KnownFiles()
        with store.staging() as staged:
            (os.link if theirs else shutil.copy)(file, staged / "weights.bin")
            known.add(staged / "weights.bin", DIGEST, theirs=theirs)
            store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, known=known)
        assert store.blob(DIGEST).samefile(file) is (theirs is not None)


def test_other_files_are_not_known(file: Path, tmp_path: Path) -> None:
    known = KnownFiles()
    known.add(file, DIGEST)
    (tmp_path / "copy").write_bytes(file.read_bytes())
    os.utime(tmp_path / "copy", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    assert known.digest(tmp_path / "copy") is None


def test_the_store_reads_no_known_file(store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(store_module, "digest_file", lambda path: read.append(path) or "never")
    known = KnownFiles()
    known.add(file, DIGEST)
    with store.staging() as staged:
        os.link(file, staged / "weights.bin")
        made = store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, known=known)
    assert read == []
    assert made.files["weights.bin"].sha256 == DIGEST
    assert store.blob(DIGEST).read_bytes() == b"as it was"


def test_the_store_reads_what_a_step_wrote_into_a_known_file(store: LocalStore, file: Path) -> None:
    known = KnownFiles()
    known.add(file, DIGEST)
    with store.staging() as staged:
        os.link(file, staged / "weights.bin")
        overwrite(staged / "weights.bin")
        made = store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, known=known)
    assert made.files["weights.bin"].sha256 == digest_bytes(b"otherwise")
