"""A release in one file: equal, whole, streamed, and shown to be what it says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from repository.making_bundle import FILES, IMAGE, compressed, make_bundle, make_release, packed, unpacked
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.repository import bundle as bundle_module
from tritonforge.repository.bundle import export_bundle
from tritonforge.repository.bundle_read import read_bundle


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_bundle_holds_the_release_its_manifest_and_its_bill(tmp_path: Path) -> None:
    release = make_release(tmp_path / "from")
    made = export_bundle(release, IMAGE, tmp_path / "b.tar.zst")
    members = unpacked(made.file)
    assert list(members)[:4] == ["manifest.json", "sbom.cdx.json", "models/all/3", "release.json"]
    manifest = json.loads(members.pop("manifest.json") or b"")
    assert manifest["release"] == release.digest
    assert manifest["image"] == {"reference": IMAGE.reference, "digest": None}
    assert manifest["platform"]["triton"] == "24.10"
    assert manifest["folders"] == ["models/all/3"]
    files = {name: data for name, data in members.items() if data is not None}
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
    }
    assert {name.removeprefix("models/"): data for name, data in files.items() if name.startswith("models/")} == FILES
    assert made.sha256 == hashlib.sha256(made.file.read_bytes()).hexdigest()
    assert made.size == made.file.stat().st_size


def test_equal_releases_give_equal_bundles_wherever_and_whenever_they_were_made(tmp_path: Path) -> None:
    one, two = make_release(tmp_path / "one"), make_release(tmp_path / "two")
    os.utime(two.folder / "release.json", (1, 1))
    (two.folder / "release.json").chmod(0o600)
    export_bundle(one, IMAGE, tmp_path / "one.tar.zst")
    export_bundle(two, IMAGE, tmp_path / "two.tar.zst")
    assert (tmp_path / "one.tar.zst").read_bytes() == (tmp_path / "two.tar.zst").read_bytes()


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
def test_any_tar_reads_it(tmp_path: Path) -> None:
    name = "net/1/" + "deep/" * 30 + "model.data"
    release = make_release(tmp_path / "from", files={**FILES, name: b"long"})
    file = export_bundle(release, IMAGE, tmp_path / "b.tar.zst").file
    (tmp_path / "out").mkdir()
    plain = tmp_path / "b.tar"
    with plain.open("wb") as stream:
        from tritonforge.repository.bundle_zstd import Decompressed

        stream.write(Decompressed(file).read())
    subprocess.run(["tar", "xf", plain, "-C", tmp_path / "out"], check=True, stderr=subprocess.PIPE)
    assert (tmp_path / "out" / "models" / name).read_bytes() == b"long"
    assert (tmp_path / "out" / "models" / "all" / "3").is_dir()
    assert read_bundle(file).ok, "long names are read here too"


def test_a_good_bundle_is_good(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    verdict = read_bundle(make_bundle(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert verdict.ok
    assert verdict.problems == ()
    assert verdict.manifest is not None
    assert (verdict.signer, verdict.trusted) == (None, None)
    assert told[-1] == (verdict.manifest.size, verdict.manifest.size)
    assert verdict.to_json()["signature"] == {"signer": None, "trusted": None}


def test_neither_writing_nor_reading_keeps_a_model_in_memory(tmp_path: Path) -> None:
    piece = os.urandom(1 << 20)
    release = make_release(tmp_path / "from", files={**FILES, "net/1/model.onnx": piece * 48})
    tracemalloc.start()
    try:
        file = export_bundle(release, IMAGE, tmp_path / "b.tar.zst").file
        verdict = read_bundle(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verdict.ok
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda top: (top / "models/net/1/model.onnx").write_bytes(b"WEIGHTS" * 1000), "has changed"),
        (lambda top: (top / "models/net/1/model.onnx").write_bytes(b"short"), "shorter than release.json says"),
        (lambda top: (top / "models/net/1/model.onnx").write_bytes(b"w" * 7001), "longer than release.json says"),
        (lambda top: (top / "models/net/1/model.onnx").unlink(), "model.onnx is missing"),
        (lambda top: (top / "models/net/2").mkdir() or (top / "models/net/2/x").touch(), "net/2/x is not of it"),
        (lambda top: (top / "models/more").symlink_to("/etc"), "is a link"),
        (lambda top: (top / "release.json").write_bytes(b"{}"), "release.json is not the one"),
    ],
    ids=["changed", "shorter", "longer", "missing", "more", "link", "document"],
)
def test_a_release_that_is_not_what_it_says_is_not_exported(tmp_path: Path, change: object, said: str) -> None:
    release = make_release(tmp_path / "from")
    change(release.folder)  # type: ignore[operator]
    with pytest.raises(CheckFailed, match=said):
        export_bundle(release, IMAGE, tmp_path / "b.tar.zst")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_bytecode_that_python_left_beside_a_served_model_does_not_go_along(tmp_path: Path) -> None:
    release = make_release(tmp_path / "from")
    before = export_bundle(release, IMAGE, tmp_path / "before.tar.zst")
    cache = release.models_folder / "words" / "2" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"code")
    assert export_bundle(release, IMAGE, tmp_path / "after.tar.zst").sha256 == before.sha256


def test_a_failing_export_leaves_the_bundle_that_was_there(tmp_path: Path) -> None:
    file = make_bundle(tmp_path)
    before = file.read_bytes()
    release = make_release(tmp_path / "from")
    (release.models_folder / "net" / "1" / "model.onnx").write_bytes(b"WEIGHTS" * 1000)
    with pytest.raises(CheckFailed):
        export_bundle(release, IMAGE, file)
    assert file.read_bytes() == before
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("point", ["bundle.write", "bundle.rename"])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    release = make_release(tmp_path / "from")
    monkeypatch.setenv("TRITONFORGE_FAULT", f"{point}:enospc")
    with pytest.raises(EnvironmentLacks, match="cannot write the bundle: No space left on device"):
        export_bundle(release, IMAGE, tmp_path / "b.tar.zst")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_every_fault_of_a_bundle_is_named_once() -> None:
    assert len(set(bundle_module.BUNDLE_FAULTS)) == len(bundle_module.BUNDLE_FAULTS)


def test_a_damaged_byte_of_the_file_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    file = make_bundle(tmp_path)
    good = file.read_bytes()
    for at in range(0, len(good), max(1, len(good) // 97)):
        bad = bytearray(good)
        bad[at] ^= 0x20
        file.write_bytes(bad)
        assert not read_bundle(file).ok, f"byte {at} of {len(good)}"


def test_a_file_that_is_cut_off_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    file = make_bundle(tmp_path)
    good = file.read_bytes()
    for length in (0, 1, 10, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        assert not read_bundle(file).ok, f"{length} of {len(good)} bytes"


def test_all_damaged_files_are_told_at_once(tmp_path: Path) -> None:
    members = unpacked(make_bundle(tmp_path))
    members["models/net/1/model.onnx"] = b"WEIGHTS" * 1000
    members["models/words/2/model.py"] = b"class TritonPythonModel: evil\n"
    del members["golden/net/generated/cases.json"]
    verdict = read_bundle(packed(tmp_path / "bad.tar.zst", members))
    assert [(problem.what, problem.path) for problem in verdict.problems] == [
        ("a file is damaged", "models/net/1/model.onnx"),
        ("a file is damaged", "models/words/2/model.py"),
        ("a file is missing", "golden/net/generated/cases.json"),
    ]
    assert verdict.problems[0].expected == hashlib.sha256(FILES["net/1/model.onnx"]).hexdigest()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends in the middle"),
        (b"\0" * 10240, "no bundle of tritonforge"),
        (b"not a tar at all" * 100, "no well-formed tar"),
    ],
    ids=["nothing", "empty tar", "text"],
)
def test_what_is_no_bundle_is_told_so(tmp_path: Path, data: bytes, said: str) -> None:
    (problem,) = read_bundle(compressed(tmp_path / "x.tar.zst", data)).problems
    assert said in problem.what


def test_a_file_without_compression_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 is a zip")
    (problem,) = read_bundle(tmp_path / "x").problems
    assert "not compressed with zstd" in problem.what


def test_a_file_that_is_absent_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_bundle(tmp_path / "absent.tar.zst")
