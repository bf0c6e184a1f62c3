from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded import libpython
from tritonforge.triton.embedded.machine import python_version

PACKAGE = f"libpython{python_version()}"
needs_it = pytest.mark.skipif(python_version() == "3.13", reason="CPython 3.13 brings its libpython in the wheel")


def apt_has_it() -> bool:
    if shutil.which("apt-cache") is None:
        return False
    policy = subprocess.run(["apt-cache", "policy", PACKAGE], capture_output=True, text=True, check=False).stdout
    return "Candidate:" in policy and "Candidate: (none)" not in policy


@needs_it
def test_a_system_that_has_the_library_is_left_alone(tmp_path: Path) -> None:
    system = tmp_path / "system"
    system.mkdir()
    library = system / f"{PACKAGE}.so.1.0"
    library.touch()
    assert libpython.ensure_library(tmp_path / "kept", offline=False, say=print, searched=[system]) == library
    assert not (tmp_path / "kept").exists()


@needs_it
def test_without_a_network_the_package_to_install_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks) as error:
        libpython.ensure_library(tmp_path, offline=True, say=print, searched=[])
    assert error.value.hint is not None
    assert f"apt install {PACKAGE}" in error.value.hint
    assert "--container" in error.value.hint


@needs_it
def test_where_apt_cannot_fetch_it_the_same_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tools / name).write_text("#!/bin/sh\nexit 100\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(EnvironmentLacks, match=PACKAGE):
        libpython.ensure_library(tmp_path / "kept", offline=False, say=print, searched=[])
    assert list((tmp_path / "kept").iterdir()) == []


@needs_it
@pytest.mark.skipif(not apt_has_it(), reason=f"apt knows no package {PACKAGE} here")
def test_it_is_fetched_by_apt_and_kept_without_touching_the_system(tmp_path: Path) -> None:
    said: list[str] = []
    found = libpython.ensure_library(tmp_path, offline=False, say=said.append, searched=[])
    assert found is not None
    assert found.is_relative_to(tmp_path)
    assert ctypes.CDLL(str(found)).Py_IsInitialized is not None
    assert PACKAGE in said[0]
    assert libpython.interpreter_library(tmp_path, []) == found, "the second time nothing is fetched"
