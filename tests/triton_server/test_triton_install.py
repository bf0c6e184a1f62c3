from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import platform
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton.embedded import fetch as fetching
from tritonforge.triton.embedded.wheels import WHEELS, WheelFile

# The package hands on the function of the same name.
installing = importlib.import_module("tritonforge.triton.embedded.install")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small wheels with the layout of the real ones, pinned in their place."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    contents = {
        "nvidia-pytriton": [
            "pytriton/tritonserver/bin/tritonserver",
            "nvidia_pytriton.libs/libb64-1.so.0d",
            "nvidia_pytriton.libs/libcudart-2.so.12.6.77",
            "pytriton/tritonserver/backends/python/libtriton_python.so",
            "pytriton/tritonserver/backends/python/triton_python_backend_utils.py",
            f"pytriton/tritonserver/python_backend_stubs/{VERSION}/triton_python_backend_stub",
            "pytriton/tritonserver/caches/local/libtritoncache_local.so",
            "nvidia_pytriton-0.7.0.dist-info/licenses/LICENSE",
        ],
        "tritonclient": [
            "tritonclient-2.51.0.data/data/bin/perf_analyzer",
            "tritonclient-2.51.0.dist-info/LICENSE.txt",
        ],
    }
    pinned = []
    for wheel in WHEELS:
        path = folder / f"{wheel.name}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in contents[wheel.name]:
                archive.writestr(name, name.encode())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = WheelFile(path.name, digest)
        pinned.append(replace(wheel, files={"x86_64": file, "aarch64": file}))
    monkeypatch.setattr(installing, "WHEELS", tuple(pinned))
    return folder


def test_it_is_found_after_it_was_installed_and_works_offline(tmp_path: Path, wheels: Path) -> None:
    home = tmp_path / "home"
    assert installing.find(home) is None
    said: list[str] = []
    runtime = installing.install(home, wheels=wheels, offline=True, progress=said.append)
    assert runtime.tritonserver.read_text() == "pytriton/tritonserver/bin/tritonserver"
    assert any("unpacking tritonclient" in line for line in said)
    assert installing.install(home, offline=True) == runtime == installing.find(home)
    assert installing.verify(runtime) == []
    assert (runtime.licences / "tritonclient" / "LICENSE.txt").is_file()
    left = {path.name for path in runtime.root.parent.iterdir()} - {runtime.root.name}
    assert left == {f".{runtime.root.name}.lock"}


def test_a_damaged_one_is_replaced(tmp_path: Path, wheels: Path) -> None:
    runtime = installing.install(tmp_path, wheels=wheels)
    runtime.tritonserver.write_text("short")
    assert installing.find(tmp_path) is None
    assert installing.install(tmp_path, wheels=wheels) == runtime
    assert installing.verify(runtime) == []


def test_verify_sees_a_change_of_the_same_size(tmp_path: Path, wheels: Path) -> None:
    runtime = installing.install(tmp_path, wheels=wheels)
    runtime.tritonserver.write_text(runtime.tritonserver.read_text().upper())
    assert installing.find(tmp_path) is not None
    assert installing.verify(runtime) == ["bin/tritonserver"]


def test_a_wheel_that_was_not_pinned_is_refused_and_nothing_is_left(tmp_path: Path, wheels: Path) -> None:
    with zipfile.ZipFile(wheels / "tritonclient.whl", "a") as archive:
        archive.writestr("more", b"x")
    with pytest.raises(CheckFailed, match="not the file that was pinned"):
        installing.install(tmp_path, wheels=wheels)
    assert installing.find(tmp_path) is None
    assert not [path for path in (tmp_path / "runtimes").iterdir() if path.is_dir()]


def test_leftovers_of_a_killed_installation_go(tmp_path: Path, wheels: Path) -> None:
    name = f"triton-2.51.0-py{VERSION}"
    leftover = tmp_path / "runtimes" / f".{name}.abc.tmp"
    leftover.mkdir(parents=True)
    installing.install(tmp_path, wheels=wheels)
    assert not leftover.exists()


def _install(home: Path, wheels: Path, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    results.put(str(installing.install(home, wheels=wheels).root))


def test_installations_at_once_make_one(tmp_path: Path, wheels: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_install, args=(tmp_path, wheels, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    roots = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert len(roots) == 1
    assert installing.find(tmp_path) is not None


def test_offline_without_it_names_the_ways_that_can(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks) as caught:
        installing.install(tmp_path, offline=True)
    for way in ("--container", "--tritonserver", "--server"):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (("machine", lambda: "riscv64"), "riscv64"),
        (("libc_ver", lambda: ("", "")), "GNU C library"),
        (("libc_ver", lambda: ("glibc", "2.31")), "2.31"),
    ],
)
def test_a_machine_that_cannot_run_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: tuple[str, object], words: str
) -> None:
    monkeypatch.setattr(platform, *patch)
    with pytest.raises(EnvironmentLacks) as caught:
        installing.install(tmp_path)
    assert words in str(caught.value)
    assert "--container IMAGE" in str(caught.value)


def test_a_failed_download_shows_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EnvironmentLacks, match="could not be downloaded"):
        fetching.fetch(WHEELS[0], "x86_64", tmp_path, given=None, say=lambda _: None)


def test_the_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITONFORGE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert installing.default_home() == tmp_path / "cache" / "tritonforge"
    monkeypatch.setenv("TRITONFORGE_HOME", str(tmp_path / "own"))
    assert installing.default_home() == tmp_path / "own"
