"""Bundles that want to write elsewhere, fill the disk, or smuggle something in."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from repository.making_bundle import compressed, make_bundle, packed, unpacked, with_manifest
from tritonforge.errors import CheckFailed
from tritonforge.repository.bundle_manifest import parse_manifest, unsafe
from tritonforge.repository.bundle_read import read_bundle
from tritonforge.repository.bundle_zstd import compressing


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes | None]:
    """The members of a good bundle."""
    return unpacked(make_bundle(tmp_path))


def problems(file: Path, unpack: Path | None = None) -> list[str]:
    if unpack is not None:
        unpack.mkdir()
    return [": ".join(filter(None, (item.path, item.what))) for item in read_bundle(file, unpack=unpack).problems]


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def test_it_is_repacked_without_harm(members: dict[str, bytes | None], tmp_path: Path) -> None:
    assert problems(packed(tmp_path / "same.tar.zst", members)) == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (info("models/net/1/evil", tarfile.SYMTYPE, "/etc/passwd"), "what is no plain file or folder"),
        (info("models/net/1/evil", tarfile.LNKTYPE, "release.json"), "what is no plain file or folder"),
        (info("models/net/1/evil", tarfile.CHRTYPE), "what is no plain file or folder"),
        (info("models/net/1/evil", tarfile.FIFOTYPE), "what is no plain file or folder"),
        (info("models/net/1/evil", tarfile.GNUTYPE_SPARSE), "what is no plain file or folder"),
        (info("../evil"), "a file that its manifest does not name"),
        (info("/tmp/evil"), "a file that its manifest does not name"),
        (info("models/net/1/evil.py"), "a file that its manifest does not name"),
        (info("models/evil", tarfile.DIRTYPE), "a folder that its manifest does not name"),
        (info("release.json"), "a file twice"),
        (info("manifest.json"), "a file that its manifest does not name"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value.type.decode()}:{value.name}",
)
def test_a_member_that_is_not_named_ends_the_reading(
    members: dict[str, bytes | None], tmp_path: Path, extra: tarfile.TarInfo, said: str
) -> None:
    file = packed(tmp_path / "bad.tar.zst", members, [(extra, b"")])
    found = problems(file, tmp_path / "out")
    assert len(found) == 1
    assert said in found[0]
    assert not list((tmp_path / "out").rglob("*evil*"))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "models/../../evil",
        "/etc/evil",
        "models//evil",
        "./models/evil",
        "models/net\\evil",
        "models/net/1/a\nb",
        "",
        "other/evil",
        "manifest.json",
        "models/" + "x" * 300,
        "models/" + "x/" * 600 + "y",
    ],
)
def test_a_manifest_that_names_such_a_path_is_not_taken(
    members: dict[str, bytes | None], tmp_path: Path, path: str
) -> None:
    def change(value: dict[str, Any]) -> None:
        value["files"][path] = {"sha256": "0" * 64, "size": 0}

    file = packed(tmp_path / "bad.tar.zst", {**with_manifest(members, change), "x": b""})
    found = problems(file, tmp_path / "out")
    assert found == ["manifest.json names a path that is not taken"]
    assert list((tmp_path / "out").iterdir()) == []


def test_plain_paths_are_taken() -> None:
    assert [unsafe(path) for path in ("release.json", "models/a/1/ü ö.bin", "golden/a-b_c.d/x")] == [None] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.update(schema=2), "another format"),
        (lambda value: value.update(format="other"), "malformed"),
        (lambda value: value.update(more=1), "malformed"),
        (lambda value: value.pop("release"), "malformed"),
        (lambda value: value.update(release="0" * 64), "not what release.json says"),
        (lambda value: value["files"].pop("release.json"), "names no release.json"),
        (lambda value: value["files"]["release.json"].update(size=1 << 40), "release.json is too large"),
        (lambda value: value["files"]["release.json"].update(size=-1), "malformed"),
        (lambda value: value["files"]["release.json"].update(size=True), "malformed"),
        (lambda value: value["files"]["release.json"].update(sha256="XYZ"), "malformed"),
        (lambda value: value["folders"].append("release.json"), "a file that is also a folder"),
        (lambda value: value["folders"].append("models/net/1/model.onnx/x"), "a file that is also a folder"),
        (lambda value: value["folders"].append("../x"), "a path that is not taken"),
        (lambda value: value.update(image={"reference": "x", "digest": "sha256:1"}), "malformed"),
        (lambda value: value.update(name="\x1b[2Jnice"), "malformed"),
        (lambda value: value["image"].update(reference="\x1b[2Jnice"), "malformed"),
    ],
)
def test_a_manifest_that_is_wrong_is_told_so(members: dict[str, bytes | None], change: Any, said: str) -> None:
    text = with_manifest(members, change)["manifest.json"]
    assert text is not None
    with pytest.raises(CheckFailed, match=said):
        parse_manifest(text)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"\xff\xfe", b"null", b"[]", b'"x"'])
def test_a_manifest_that_is_no_object_is_told_so(text: bytes) -> None:
    with pytest.raises(CheckFailed, match=r"no JSON|malformed"):
        parse_manifest(text)


def test_a_file_of_another_size_than_named_is_not_read_on(members: dict[str, bytes | None], tmp_path: Path) -> None:
    members["models/net/1/model.onnx"] = b"weights" * 1001
    found = problems(packed(tmp_path / "bad.tar.zst", members), tmp_path / "out")
    assert found == ["models/net/1/model.onnx has another size than the manifest says"]


def test_a_manifest_without_bound_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "bomb.tar.zst"
    header = info("manifest.json", size=40 << 30).tobuf(tarfile.GNU_FORMAT)
    compressed(file, header)
    assert problems(file) == ["manifest.json is too large"]


def test_a_name_without_bound_is_not_read(tmp_path: Path) -> None:
    """``tarfile`` itself would read all of it into memory."""
    raw = info("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 30).tobuf(tarfile.GNU_FORMAT)
    file = tmp_path / "bomb.tar.zst"
    with file.open("wb") as target, compressing(target) as stream:
        stream.write(raw)
        for _ in range(64):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        found = problems(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == ["the bundle has a name that is too long"]
    assert peak < 8 << 20


def test_an_extended_header_is_not_taken(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = info("manifest.json", size=2)
        entry.pax_headers = {"comment": "x" * 1000}
        archive.addfile(entry, io.BytesIO(b"{}"))
    assert problems(compressed(tmp_path / "pax.tar.zst", raw.getvalue())) == [
        "the bundle holds what is no plain file or folder"
    ]


def test_what_comes_after_the_end_is_not_taken(tmp_path: Path) -> None:
    good = make_bundle(tmp_path)
    more = tmp_path / "more"
    compressed(more, b"hidden" * 5000)
    good.write_bytes(good.read_bytes() + more.read_bytes())
    assert problems(good) == ["the bundle goes on after its end"]
    make_bundle(tmp_path)
    good.write_bytes(good.read_bytes() + b"no frame at all")
    assert len(problems(good)) == 1


def test_the_manifest_is_held_to_the_release(members: dict[str, bytes | None], tmp_path: Path) -> None:
    """A file that the manifest names and ``release.json`` does not would be served, and be of no release."""
    import hashlib

    def change(value: dict[str, Any]) -> None:
        value["files"]["models/net/9/model.onnx"] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}

    file = packed(tmp_path / "bad.tar.zst", {**with_manifest(members, change), "models/net/9/model.onnx": b"x"})
    assert problems(file) == ["models/net/9/model.onnx: only the manifest names a file"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"{}", "no document of a release"),
        (b"[]", "no document of a release"),
        (b"{", "no JSON"),
        (json.dumps({"models": [{"folder": "a", "version": "x", "files": {}}], "golden": {}}).encode(), "no document"),
        (json.dumps({"models": [], "golden": {}}).encode(), "differ about the name"),
    ],
)
def test_a_release_document_that_is_none_is_told_so(tmp_path: Path, document: bytes, said: str) -> None:
    import hashlib

    digest = hashlib.sha256(document).hexdigest()
    manifest = {
        "format": "tritonforge-bundle",
        "schema": 1,
        "release": digest,
        "name": "x",
        "platform": {},
        "image": {"reference": "x"},
        "files": {"release.json": {"sha256": digest, "size": len(document)}},
    }
    members = {"manifest.json": json.dumps(manifest).encode(), "release.json": document}
    (found,) = problems(packed(tmp_path / "bad.tar.zst", members))
    assert said in found


def test_no_name_in_a_bundle_moves_the_cursor_of_a_terminal(members: dict[str, bytes | None], tmp_path: Path) -> None:
    evil = "models/\x1b[2Jevil"
    for extra in (info(evil), info(evil, tarfile.DIRTYPE), info(evil, tarfile.SYMTYPE, "/")):
        (problem,) = read_bundle(packed(tmp_path / "bad.tar.zst", members, [(extra, b"")])).problems
        assert "evil" in str(problem.found)
        assert "\x1b" not in str(problem.found) + problem.what
