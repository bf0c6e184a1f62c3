"""What an installation from a wheel has: all that lies beside the package in the sources and is used at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(SOURCES)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(zipfile.ZipFile(next(folder.glob("*.whl"))).namelist())


@pytest.mark.slow
@pytest.mark.parametrize(("there", "inside"), [("helm/tritonforge", "chart"), ("templates", "templates")])
def test_a_folder_of_the_sources_is_in_it_whole(names: set[str], there: str, inside: str) -> None:
    files = [path.relative_to(SOURCES / there) for path in (SOURCES / there).rglob("*") if path.is_file()]
    wanted = {f"tritonforge/{inside}/{path}" for path in files if not path.name.startswith(".")}
    assert wanted
    assert {name for name in wanted if "__pycache__" not in name} <= names


@pytest.mark.slow
def test_files_that_are_run_elsewhere_are_in_it(names: set[str]) -> None:
    assert {"tritonforge/compose.yaml", "tritonforge/rollout/agent/agent.py", "tritonforge/triton/warden.py"} <= names
