from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from tritonforge.artifact import linking
from tritonforge.artifact.artifact import inside, is_inside
from tritonforge.artifact.digest import digest_bytes, stamp
from tritonforge.artifact.linking import copy_file, copy_hashed, holds, place_file, share_file, take_file
from tritonforge.artifact.sealed import is_sealed, seal
from tritonforge.errors import InternalError


def test_a_placed_file_shares_its_bytes(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"data")
    place_file(source, tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").stat().st_ino == source.stat().st_ino


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_where_it_cannot_be_linked_it_is_copied_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    source = tmp_path / "a"
    source.write_bytes(b"data")
    monkeypatch.setattr(os, "link", refuse)
    place_file(source, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"data"
    assert (tmp_path / "b").stat().st_ino != source.stat().st_ino
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o444


def test_another_file_system_gets_a_copy(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source = tmp_path / "a"
    source.write_bytes(b"data")
    target = shm / f"tritonforge-test-{os.getpid()}"
    try:
        place_file(source, target)
        assert target.read_bytes() == b"data"
    finally:
        target.unlink(missing_ok=True)


@pytest.mark.parametrize("place", [place_file, copy_file])
def test_nothing_is_overwritten(tmp_path: Path, place: object) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        place(tmp_path / "a", tmp_path / "b")  # type: ignore[operator]
    assert (tmp_path / "b").read_text() == "b"


def test_a_copy_is_independent(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    copy_file(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").write_bytes(b"y")
    assert (tmp_path / "b").read_bytes() == b"x" * 3_000_000


@pytest.mark.parametrize(
    ("path", "ok"),
    [
        ("a", True),
        ("a/b.c", True),
        ("a/./b", True),
        ("..a/b", True),
        ("../a", False),
        ("a/../../b", False),
        ("/a", False),
        ("", False),
        (".", False),
        ("a\0b", False),
    ],
)
def test_no_path_leaves_its_root(tmp_path: Path, path: str, ok: bool) -> None:
    assert is_inside(path) is ok
    if ok:
        assert inside(tmp_path, path) == tmp_path / path
    else:
        with pytest.raises(InternalError):
            inside(tmp_path, path)


@pytest.mark.parametrize("link", [True, False])
def test_a_file_of_somebody_elses_is_shared_or_copied(tmp_path: Path, link: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    (tmp_path / "name").symlink_to(source)
    target = tmp_path / "folder" / "target"
    shared = share_file(tmp_path / "name", target, link=link)
    assert target.read_bytes() == b"bytes" and not target.is_symlink()
    if target.stat().st_ino == source.stat().st_ino:
        assert link and shared
    else:
        target.write_bytes(b"other")
        assert source.read_bytes() == b"bytes"


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "source").write_bytes(b"bytes")
    share_file(tmp_path / "source", tmp_path / "target", link=True)
    assert (tmp_path / "target").read_bytes() == b"bytes"
    assert (tmp_path / "target").stat().st_ino != (tmp_path / "source").stat().st_ino


def test_a_hashed_copy_gives_the_digest_of_its_bytes(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"data" * 700_000)
    assert copy_hashed(source, tmp_path / "b") == hashlib.sha256(b"data" * 700_000).hexdigest()
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


def test_a_hashed_copy_shares_blocks_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is that of what the clone holds, whatever the source holds by then."""

    def clone(target: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, 100, 0) + b" as cloned", 0)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    source = tmp_path / "a"
    source.write_bytes(b"data")
    assert copy_hashed(source, tmp_path / "b") == hashlib.sha256(b"data as cloned").hexdigest()
    assert (tmp_path / "b").read_bytes() == b"data as cloned"


class TestSealed:
    @pytest.fixture
    def sealed(self, tmp_path: Path) -> Path:
        path = tmp_path / "f"
        path.write_bytes(b"abc")
        seal(path, digest_bytes(b"abc"))
        return path

    def test_a_sealed_file_is_not_read(self, sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(linking, "digest_file", lambda path: pytest.fail("it was read"))
        assert holds(sealed, digest_bytes(b"abc"), 3)
        assert not holds(sealed, digest_bytes(b"abc"), 4)

    @pytest.mark.parametrize(("written", "right"), [(b"abd", False), (b"abc", True)])
    def test_who_writes_into_it_has_it_read_again(self, sealed: Path, written: bytes, right: bool) -> None:
        sealed.write_bytes(written)
        assert not is_sealed(sealed.stat(), digest_bytes(b"abc"))
        assert holds(sealed, digest_bytes(b"abc"), 3) is right
        assert is_sealed(sealed.stat(), digest_bytes(b"abc")) is right

    def test_what_is_away_or_a_folder_is_not_held(self, tmp_path: Path) -> None:
        assert not holds(tmp_path / "none", digest_bytes(b""), 0)
        assert not holds(tmp_path, digest_bytes(b""), tmp_path.stat().st_size)

    def test_a_copy_of_a_sealed_file_is_sealed(
        self, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "link", refuse)
        place_file(sealed, tmp_path / "copy")
        assert is_sealed((tmp_path / "copy").stat(), digest_bytes(b"abc"))

    def test_files_of_one_size_differ_in_their_times(self, sealed: Path, tmp_path: Path) -> None:
        """Else rsync, which compares sizes and times, would take the one for the other."""
        other = tmp_path / "other"
        other.write_bytes(b"abd")
        seal(other, digest_bytes(b"abd"))
        times = [path.stat().st_mtime for path in (sealed, other)]
        assert times[0] != times[1]
        assert all(1_000_000_000 <= moment < 1_300_000_000 for moment in times)


class TestTakeFile:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "source"
        path.write_bytes(b"abc")
        return path

    @pytest.mark.parametrize("link", [False, True])
    @pytest.mark.parametrize("known", [False, True])
    def test_the_bytes_are_those_of_the_digest(self, source: Path, tmp_path: Path, link: bool, known: bool) -> None:
        seen = stamp(source.stat()) if known else None
        assert take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=seen, link=link)
        assert (tmp_path / "t").read_bytes() == b"abc"
        assert (tmp_path / "t").samefile(source) is link

    @pytest.mark.parametrize("link", [False, True])
    def test_a_file_that_changed_since_it_was_read_is_refused(self, source: Path, tmp_path: Path, link: bool) -> None:
        seen = stamp(source.stat())
        source.write_bytes(b"abd!")
        assert not take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=seen, link=link)

    @pytest.mark.parametrize("link", [False, True])
    def test_a_file_that_is_as_it_was_is_not_read_for_its_digest(
        self, source: Path, tmp_path: Path, link: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linking, "digest_file", lambda path: pytest.fail("it was read"))
        monkeypatch.setattr(linking, "copy_hashed", lambda *_: pytest.fail("it was read"))
        assert take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=stamp(source.stat()), link=link)

    @pytest.mark.parametrize("link", [False, True])
    def test_a_forged_seal_is_no_proof(self, source: Path, tmp_path: Path, link: bool) -> None:
        source.write_bytes(b"abd")
        seal(source, digest_bytes(b"abc"))
        assert not take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen="another", link=link)

    def test_a_linked_file_is_read_only_from_then_on(self, source: Path, tmp_path: Path) -> None:
        assert take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=None, link=True)
        assert source.stat().st_mode & 0o777 == 0o444

    def test_a_copy_that_somebody_writes_below_is_refused(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def copy(source: Path, target: Path) -> None:
            copy_file(source, target)
            source.write_bytes(b"changed meanwhile")

        monkeypatch.setattr(linking, "copy_file", copy)
        assert not take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=stamp(source.stat()), link=False)

    def test_blocks_are_shared_rather_than_the_file(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def clone(target: int, request: int, source: int) -> int:
            assert request == 0x40049409
            os.pwrite(target, os.pread(source, 100, 0), 0)
            return 0

        monkeypatch.setattr(fcntl, "ioctl", clone)
        assert take_file(source, tmp_path / "t", digest_bytes(b"abc"), seen=None, link=True)
        assert not (tmp_path / "t").samefile(source)
        assert (tmp_path / "t").read_bytes() == b"abc"
