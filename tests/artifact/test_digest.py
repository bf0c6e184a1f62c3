from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.artifact import digest
from tritonforge.artifact.digest import FileDigests, canonical_json, digest_bytes, digest_file, digest_of
from tritonforge.artifact.sealed import seal

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def reversed_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_equal_values_have_one_form_and_it_reads_back(value: object) -> None:
    assert canonical_json(value) == canonical_json(reversed_keys(value))
    assert json.loads(canonical_json(value)) == value


@given(values, values)
def test_different_values_have_different_digests(a: object, b: object) -> None:
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest_of(a) == digest_of(b)) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_has_no_digest(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of({"a": value})


@given(st.binary(max_size=5000))
def test_a_file_has_the_digest_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("digest") / "f"
    path.write_bytes(data)
    assert digest_file(path) == digest_bytes(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 199, 200, 201, 1050])
def test_a_large_file_is_hashed_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(digest, "_LARGE", 0)
    monkeypatch.setattr(digest, "_PIECE", 100)
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(size))
    assert digest_file(path) == hashlib.sha256(data).hexdigest()


def test_a_large_file_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_LARGE", 0)
    with pytest.raises(OSError, match="Input/output error"):
        digest_file(Path("/proc/self/mem"))  # nothing is mapped at its beginning


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


class TestMemory:
    @pytest.fixture
    def reads(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        seen: list[Path] = []

        def counted(path: Path) -> str:
            seen.append(path)
            return digest_file(path)

        monkeypatch.setattr(digest, "digest_file", counted)
        return seen

    def test_an_unchanged_file_is_read_once(
        self, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "f").write_bytes(b"abc")
        monkeypatch.setattr(digest, "_RACY_NS", -1)  # ctime cannot be set back
        told: list[Path] = []
        for _ in range(3):
            known = FileDigests(tmp_path / "d.sqlite").digest(tmp_path / "f", told.append)
            assert known[:2] == (digest_bytes(b"abc"), 3)
        assert len(reads) == 1
        assert told == [tmp_path / "f"]

    def test_a_young_file_is_read_again(self, tmp_path: Path, reads: list[Path]) -> None:
        (tmp_path / "f").write_bytes(b"abc")
        memory = FileDigests(tmp_path / "d.sqlite")
        memory.digest(tmp_path / "f")
        memory.digest(tmp_path / "f")
        assert len(reads) == 2

    @pytest.mark.parametrize("change", ["content", "same size and mtime", "another file"])
    def test_a_changed_file_is_read_again(
        self, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        monkeypatch.setattr(digest, "_RACY_NS", -1)
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        aged(path, 100)
        memory = FileDigests(tmp_path / "d.sqlite")
        memory.digest(path)
        before = path.stat()
        if change == "another file":
            path.unlink()
        path.write_bytes(b"xyz1" if change == "content" else b"xyz")
        if change != "content":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert memory.digest(path)[0] == digest_bytes(path.read_bytes())
        assert len(reads) == 2

    @pytest.fixture
    def remembered(
        self, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> tuple[FileDigests, Path]:
        """A memory, and a file that it read and knows."""
        monkeypatch.setattr(digest, "_RACY_NS", -1)
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        memory = FileDigests(tmp_path / "d.sqlite")
        memory.digest(path)
        return memory, path

    def test_a_file_that_the_store_took_over_is_not_read_again(
        self, remembered: tuple[FileDigests, Path], tmp_path: Path, reads: list[Path]
    ) -> None:
        memory, path = remembered
        os.link(path, tmp_path / "blob")
        seal(tmp_path / "blob", digest_bytes(b"abc"))
        assert memory.digest(path)[:2] == (digest_bytes(b"abc"), 3)
        assert len(reads) == 1

    def test_a_seal_on_another_file_is_no_proof(
        self, remembered: tuple[FileDigests, Path], tmp_path: Path, reads: list[Path]
    ) -> None:
        memory, path = remembered
        (tmp_path / "g").write_bytes(b"xyz")
        (tmp_path / "g").rename(path)
        seal(path, digest_bytes(b"abc"))
        assert memory.digest(path).sha256 == digest_bytes(b"xyz")
        path.write_bytes(b"longer")
        seal(path, digest_bytes(b"xyz"))
        assert memory.digest(path).sha256 == digest_bytes(b"longer")

    def test_only_an_old_file_has_a_stamp(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A mapping may be written again without another time until its pages are on the disk."""
        (tmp_path / "f").write_bytes(b"abc")
        memory = FileDigests(tmp_path / "d.sqlite")
        assert memory.digest(tmp_path / "f").stamp is None
        monkeypatch.setattr(digest, "_MAPPED_NS", -1)
        assert memory.digest(tmp_path / "f").stamp == digest.stamp((tmp_path / "f").stat())

    def test_facts_are_remembered_by_content(self, tmp_path: Path) -> None:
        FileDigests(tmp_path / "d.sqlite").remember("abc", "kind", ["x"])
        memory = FileDigests(tmp_path / "d.sqlite")
        assert memory.fact("abc", "kind") == ["x"]
        assert memory.fact("abc", "other") is None
        assert memory.fact("abd", "kind") is None

    @pytest.mark.parametrize("broken", ["damaged", "a folder", "below a file"])
    def test_without_its_file_everything_is_computed(self, tmp_path: Path, broken: str) -> None:
        place = tmp_path / "d.sqlite"
        if broken == "damaged":
            place.write_bytes(b"this is no database" * 100)
        elif broken == "a folder":
            place.mkdir()
        else:
            place.write_bytes(b"")
            place = place / "d.sqlite"
        (tmp_path / "f").write_bytes(b"abc")
        memory = FileDigests(place)
        memory.remember("a", "b", {})
        assert memory.fact("a", "b") is None
        assert memory.digest(tmp_path / "f")[:2] == (digest_bytes(b"abc"), 3)

    @pytest.mark.parametrize("column", ["files SET sha256", "facts SET value"])
    def test_a_damaged_row_is_not_believed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str) -> None:
        monkeypatch.setattr(digest, "_RACY_NS", -1)
        (tmp_path / "f").write_bytes(b"abc")
        memory = FileDigests(tmp_path / "d.sqlite")
        memory.digest(tmp_path / "f")
        memory.remember("abc", "kind", ["x"])
        name = column.split()[-1]
        with sqlite3.connect(tmp_path / "d.sqlite") as rows:
            rows.execute(f"UPDATE {column} = substr({name}, 1, 20) || '0' || substr({name}, 22)")
        assert memory.digest(tmp_path / "f")[0] == digest_bytes(b"abc")
        assert memory.fact("abc", "kind") in (["x"], None)
        assert (memory.fact("abc", "kind") is None) is ("facts" in column)


def test_a_renamed_folder_is_still_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_RACY_NS", -1)
    digests = FileDigests(tmp_path / "digests.sqlite")
    old, beside, new = tmp_path / "old", tmp_path / "old2", tmp_path / "new"
    for folder in (old, beside):
        folder.mkdir()
        (folder / "file").write_bytes(b"bytes")
        digests.digest(folder / "file")
    before = digests.digest(old / "file")[:2]
    old.rename(new)
    digests.moved(old, new)
    monkeypatch.setattr(digest, "digest_file", lambda path: pytest.fail(f"{path} is read again"))
    assert digests.digest(new / "file")[:2] == before == digests.digest(beside / "file")[:2]
