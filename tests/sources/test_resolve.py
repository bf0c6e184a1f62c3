from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tritonforge.artifact.digest import FileDigests, digest_bytes, digest_of
from tritonforge.errors import EnvironmentLacks, Place, SpecError
from tritonforge.sources.resolve import LINKED_FROM, Resolver, SourceFile
from tritonforge.spec.lock import Lock, LockedSource
from tritonforge.spec.source import SourceRef

PLACE = Place(Path("forge.yaml"), 7, "models.net.source")


def ref(value: object) -> SourceRef:
    return SourceRef.model_validate(value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "spec"
    made.mkdir()
    return made


@pytest.fixture
def resolver(folder: Path, tmp_path: Path) -> Resolver:
    return Resolver(folder, tmp_path / "packages", FileDigests(tmp_path / "digests.sqlite"), Lock())


def write(path: Path, data: bytes = b"data") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def refused(resolver: Resolver, value: object, *, tree: bool = False) -> SpecError:
    with pytest.raises(SpecError) as raised:
        (resolver.tree if tree else resolver.file)(ref(value), PLACE)
    assert raised.value.place == PLACE
    return raised.value


def test_a_file_is_where_the_spec_says_with_its_digest(resolver: Resolver, folder: Path) -> None:
    path = write(folder / "deep" / "net.onnx")
    found = resolver.file(ref("deep/net.onnx"), PLACE)
    assert found == SourceFile(path, digest_bytes(b"data"), 4)
    assert "path" not in found.to_json()
    assert resolver.tree(ref("deep/net.onnx"), PLACE) == {"net.onnx": found}


@pytest.mark.parametrize("link", [True, False])
def test_only_large_files_are_linked_and_only_where_the_spec_says(resolver: Resolver, folder: Path, link: bool) -> None:
    write(folder / "small")
    with (folder / "large").open("wb") as stream:
        stream.truncate(LINKED_FROM)
    assert resolver.file(ref({"path": "large", "link": link}), PLACE).link is link
    assert not resolver.file(ref({"path": "small", "link": link}), PLACE).link
    assert {name: file.link for name, file in resolver.tree(ref({"path": ".", "link": link}), PLACE).items()} == {
        "large": link,
        "small": False,
    }


@pytest.mark.parametrize("why", ["another user's", "another file system"])
def test_what_cannot_be_linked_is_refused(
    resolver: Resolver, folder: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (folder / "large").open("wb") as stream:
        stream.truncate(LINKED_FROM)
    if why == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    else:
        resolver = replace(resolver, cache=Path("/proc/store/packages"))
    with pytest.raises(EnvironmentLacks, match="link: true") as raised:
        resolver.file(ref({"path": "large", "link": True}), PLACE)
    assert why in str(raised.value)
    assert resolver.file(ref("large"), PLACE).size == LINKED_FROM


def test_a_path_may_begin_at_home(resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "models" / "a")
    assert resolver.file(ref("~/models/a"), PLACE).path == tmp_path / "models" / "a"
    assert resolver.is_folder(ref("~/models"))
    assert not resolver.is_folder(ref("~/models/a"))


def test_a_missing_file_is_named_with_its_nearest_neighbour(resolver: Resolver, folder: Path) -> None:
    write(folder / "network.onnx")
    error = refused(resolver, "netwrok.onnx")
    assert "missing" in error.message
    assert error.found == str(folder / "netwrok.onnx")
    assert error.hint == "did you mean 'network.onnx'?"


@pytest.mark.parametrize("path", ["no/such/folder/x", "x" * 300, "nul\0l"], ids=["folder", "long name", "zero byte"])
def test_a_path_that_cannot_be_is_refused_too(resolver: Resolver, path: str) -> None:
    refused(resolver, path)


def test_a_folder_is_no_file(resolver: Resolver, folder: Path) -> None:
    (folder / "sub").mkdir()
    assert "folder" in refused(resolver, "sub").message


def test_what_is_neither_file_nor_folder_is_not_read(resolver: Resolver, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert "neither" in refused(resolver, "pipe").message
    assert "neither" in refused(resolver, "/dev/zero").message


def test_another_content_than_the_spec_expects_is_refused(resolver: Resolver, folder: Path) -> None:
    write(folder / "a")
    assert resolver.file(ref({"path": "a", "sha256": digest_bytes(b"data")}), PLACE).size == 4
    error = refused(resolver, {"path": "a", "sha256": "0" * 64})
    assert error.expected == f"sha256 {'0' * 64}"
    assert digest_bytes(b"data") in str(error.found)


class TestFolders:
    def test_a_folder_is_all_its_files_without_what_tools_leave(self, resolver: Resolver, folder: Path) -> None:
        for name in ("model.py", "sub/x.txt", ".hidden", "sub/__pycache__/x.pyc", "y.pyc", ".git/config", ".DS_Store"):
            write(folder / "src" / name)
        (folder / "src" / "empty").mkdir()
        assert sorted(resolver.tree(ref("src"), PLACE)) == [".hidden", "model.py", "sub/x.txt"]

    def test_links_inside_are_followed(self, resolver: Resolver, folder: Path) -> None:
        write(folder / "src" / "real" / "a")
        (folder / "src" / "file").symlink_to("real/a")
        (folder / "src" / "dir").symlink_to("real")
        assert sorted(resolver.tree(ref("src"), PLACE)) == ["dir/a", "file", "real/a"]

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("/etc/passwd", "leads out"),
            ("/etc", "leads out"),
            ("../../secret", "leads out"),
            ("../other", "leads out"),
            ("nowhere", "leads nowhere"),
            (".", "leads back"),
            ("..", "leads back"),
        ],
    )
    def test_links_out_nowhere_or_in_a_circle_are_refused(
        self, resolver: Resolver, folder: Path, target: str, message: str
    ) -> None:
        write(folder / "other" / "a")
        write(folder / "src" / "sub" / "x")
        link = folder / "src" / "sub" / "link"
        if target == "../other":
            target = "../../other"
        link.symlink_to(target)
        error = refused(resolver, "src", tree=True)
        assert message in error.message
        assert error.found == str(link)

    def test_two_links_into_each_other_are_refused(self, resolver: Resolver, folder: Path) -> None:
        for here, there in (("a", "b"), ("b", "a")):
            (folder / "src" / here).mkdir(parents=True)
            (folder / "src" / here / "link").symlink_to(f"../{there}")
        assert "leads back" in refused(resolver, "src", tree=True).message

    def test_the_digest_of_a_folder_is_that_of_its_files(self, resolver: Resolver, folder: Path) -> None:
        write(folder / "src" / "a", b"1")
        expected = digest_of({"a": digest_bytes(b"1")})
        assert resolver.tree(ref({"path": "src", "sha256": expected}), PLACE)
        write(folder / "src" / "b", b"2")
        assert refused(resolver, {"path": "src", "sha256": expected}, tree=True).expected == expected


MAGIKA = "package:magika==1.0.3/magika/models/standard_v3_3/config.min.json"


class TestPackages:
    def test_an_installed_file_is_found_and_noted_in_the_lock(self, resolver: Resolver) -> None:
        found = resolver.file(ref(MAGIKA), PLACE)
        assert found.path.is_file()
        assert resolver.lock.sources == {MAGIKA: LockedSource("1.0.3", found.sha256)}

    def test_without_a_version_the_lock_keeps_the_first(self, resolver: Resolver) -> None:
        name = MAGIKA.replace("==1.0.3", "")
        resolver.file(ref(name), PLACE)
        assert resolver.lock.sources[name].version == "1.0.3"

    def test_what_the_lock_says_is_held_to_unless_sources_are_updated(self, resolver: Resolver) -> None:
        resolver.lock.sources[MAGIKA] = LockedSource("1.0.3", "0" * 64)
        error = refused(resolver, MAGIKA)
        assert "forge.lock" in error.message
        assert "--update-sources" in str(error.hint)
        fresh = Resolver(resolver.folder, resolver.cache, resolver.digests, resolver.lock, update=True)
        found = fresh.file(ref(MAGIKA), PLACE)
        assert resolver.lock.sources[MAGIKA].sha256 == found.sha256

    def test_a_missing_file_of_a_package_is_named_with_its_nearest(self, resolver: Resolver) -> None:
        error = refused(resolver, MAGIKA.replace("config.min.json", "config.mni.json"))
        assert "magika 1.0.3 has no such file" in error.message
        assert "config.min.json" in str(error.hint)

    def test_a_path_may_not_leave_its_package(self, resolver: Resolver) -> None:
        assert "leaves" in refused(resolver, "package:magika==1.0.3/../../../etc/passwd").message


def test_a_name_that_is_no_text_is_refused(resolver: Resolver, folder: Path) -> None:
    (folder / "m").mkdir()
    with open(os.fsencode(folder / "m") + b"/\xff.txt", "wb"):
        pass
    error = refused(resolver, "m", tree=True)
    assert "not UTF-8" in error.message
    str(error).encode()
