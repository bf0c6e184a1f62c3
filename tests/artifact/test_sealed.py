from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tritonforge.artifact import store as store_module
from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.sealed import SealedFiles
from tritonforge.artifact.store import LocalStore

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


def test_a_link_to_a_sealed_file_is_known(file: Path, tmp_path: Path) -> None:
    sealed = SealedFiles()
    sealed.seal(file, DIGEST)
    os.link(file, tmp_path / "link")
    assert sealed.digest(tmp_path / "link") == DIGEST


@pytest.mark.parametrize("change", [overwrite, write_through_a_mapping, replace])
def test_a_file_that_was_written_is_not_known(file: Path, change: Callable[[Path], None]) -> None:
    sealed = SealedFiles()
    sealed.seal(file, DIGEST)
    change(file)
    assert file.read_bytes() == b"otherwise"
    assert sealed.digest(file) is None


def test_other_files_are_not_known(file: Path, tmp_path: Path) -> None:
    sealed = SealedFiles()
    sealed.seal(file, DIGEST)
    (tmp_path / "copy").write_bytes(file.read_bytes())
    os.utime(tmp_path / "copy", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    assert sealed.digest(tmp_path / "copy") is None


def test_the_store_reads_no_sealed_file(store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(store_module, "digest_file", lambda path: read.append(path) or "never")
    sealed = SealedFiles()
    sealed.seal(file, DIGEST)
    with store.staging() as staged:
        os.link(file, staged / "weights.bin")
        made = store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, sealed=sealed)
    assert read == []
    assert made.files["weights.bin"].sha256 == DIGEST
    assert store.blob(DIGEST).read_bytes() == b"as it was"


def test_the_store_reads_what_a_step_wrote_into_a_sealed_file(store: LocalStore, file: Path) -> None:
    sealed = SealedFiles()
    sealed.seal(file, DIGEST)
    with store.staging() as staged:
        os.link(file, staged / "weights.bin")
        overwrite(staged / "weights.bin")
        made = store.commit(KEY, staged, Draft("files"), facets={}, provenance={}, sealed=sealed)
    assert made.files["weights.bin"].sha256 == digest_bytes(b"otherwise")
