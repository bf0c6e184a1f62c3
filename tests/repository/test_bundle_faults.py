"""Killed at every durable step of an export and of an import: what is visible is whole, and the next run ends well."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from repository.making_bundle import FILES, IMAGE, PLATFORM, make_bundle, make_release
from tritonforge.repository.bundle import BUNDLE_FAULTS, export_bundle
from tritonforge.repository.bundle_admit import admit_bundle
from tritonforge.repository.bundle_read import Trust, read_bundle
from tritonforge.repository.bundle_signature import PublicKey
from tritonforge.repository.release import PlatformFolder, read_release

EXPORTING = [name for name in BUNDLE_FAULTS if name.startswith("bundle.")]
IMPORTING = [name for name in BUNDLE_FAULTS if name.startswith("import.")]


def killed_at(point: str, work: Callable[[], object]) -> None:
    """Do it in a process of its own, which dies at ``point``."""
    child = os.fork()
    if child == 0:
        os.environ["TRITONFORGE_FAULT"] = f"{point}:kill"
        try:
            work()
        finally:
            os._exit(9)  # it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"nothing goes through {point}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_every_step_is_gone_through_here() -> None:
    assert [*EXPORTING, *IMPORTING] == list(BUNDLE_FAULTS)


@pytest.mark.parametrize("before", ["nothing", "another", "signed"])
@pytest.mark.parametrize("point", EXPORTING)
def test_an_export(tmp_path: Path, point: str, before: str) -> None:
    key, old_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    release = make_release(tmp_path / "from")
    file = tmp_path / "out" / "b.tar.zst"
    file.parent.mkdir()
    if before != "nothing":
        older = make_release(tmp_path / "older", files={**FILES, "net/1/model.onnx": b"older"})
        export_bundle(older, IMAGE, file, key=old_key if before == "signed" else None, detached=before == "signed")
    there = file.read_bytes() if file.exists() else None

    killed_at(point, lambda: export_bundle(release, IMAGE, file, key=key, detached=True))
    if file.exists():
        verdict = read_bundle(file)
        assert verdict.ok, "with the signature beside it, if any"
        assert file.read_bytes() == there or (verdict.manifest and verdict.manifest.release == release.digest)
    else:
        assert there is None

    # What the killed process staged goes with the next export: the test's child is gone, and its files are known.
    export_bundle(release, IMAGE, file, key=key, detached=True)
    assert sorted(path.name for path in file.parent.iterdir()) == ["b.tar.zst", "b.tar.zst.sig"]
    assert read_bundle(file, Trust((PublicKey(key.public_key().public_bytes_raw()),))).ok


@pytest.mark.parametrize("point", IMPORTING)
@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_an_import(tmp_path: Path, point: str, before: str) -> None:
    file = make_bundle(tmp_path)
    original = make_release(tmp_path / "from")
    folder = PlatformFolder(tmp_path / "site" / "local")
    target = folder.releases / original.digest
    if before == "damaged":
        admit_bundle(file, folder, PLATFORM)
        (target / "models" / "net" / "1" / "model.onnx").unlink()

    killed_at(point, lambda: admit_bundle(file, folder, PLATFORM))
    visible = [path.name for path in folder.releases.iterdir() if not path.name.startswith(".")]
    assert visible == ([original.digest] if before == "damaged" or point == "import.renamed" else [])
    if visible:
        assert read_release(target).is_whole() is (point == "import.renamed")

    admitted = admit_bundle(file, folder, PLATFORM)
    assert admitted.new is (point != "import.renamed")
    assert admitted.release.is_whole()
    assert [path.name for path in folder.releases.iterdir()] == [original.digest]
