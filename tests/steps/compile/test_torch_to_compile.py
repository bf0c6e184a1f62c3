"""``torch-to-compile`` packs a module so that it runs without tritonforge, and its runner runs just that."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.runners.runner import open_runner
from tritonforge.sources.python_model import check_interface

from .torch_sources import module_source

torch = pytest.importorskip("torch", reason="torch is not installed")

Run = Callable[..., Artifact]
INPUTS = {"x": -np.ones((2, 4), np.float32), "mask": np.ones((2, 3), np.float32)}


@pytest.fixture
def stubborn(run: Run, store: LocalStore, tmp_path: Path) -> tuple[Artifact, Path]:
    """A module that nothing can export, packed to run as it is."""
    made = run("torch-to-compile", {"mode": "off"}, inputs={"model": module_source(store, "Stubborn")})
    folder = tmp_path / "model"
    for path in made.files:
        store.place(made, path, folder / path)
    return made, folder


def test_it_is_a_python_model_with_its_source_and_its_requirements(stubborn: tuple[Artifact, Path]) -> None:
    made, folder = stubborn
    assert made.format == "python" and made.metadata["runner"] == "torch-compile"
    assert sorted(made.files) == [
        "forge_torch.py", "model.py", "recipe.json", "requirements.txt", "source/model/net.py",
    ]  # fmt: skip
    check_interface(folder)
    assert f"torch=={torch.__version__.partition('+')[0]}" in (folder / "requirements.txt").read_text().splitlines()
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["by_name"], recipe["dynamic"], recipe["mode"]) == (True, True, "off")
    assert [shapes["x"]["shape"] for shapes in recipe["warm_up"]] == [[2, 4], [1, 4], [3, 4]]


def test_nothing_of_tritonforge_is_needed_to_run_it(stubborn: tuple[Artifact, Path]) -> None:
    _, folder = stubborn
    for name in ("model.py", "forge_torch.py"):
        tree = ast.parse((folder / name).read_text())
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not any(name.startswith("tritonforge") for name in named)
    program = (
        "import sys, torch; sys.modules['tritonforge'] = None; sys.path.insert(0, '.'); from pathlib import Path\n"
        "from forge_torch import Served\n"
        "said = []\n"
        "served = Served(Path('.').resolve(), say=said.append)\n"
        "found = served.run({'x': torch.ones(2, 4), 'mask': torch.ones(2, 3)})\n"
        "print(said, {name: list(value.shape) for name, value in found.items()})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[] {'y': [2, 3], 's': [2]}", done.stderr


def test_the_runner_runs_the_loader_that_is_served(stubborn: tuple[Artifact, Path]) -> None:
    made, folder = stubborn
    runner = open_runner(made, folder)
    assert runner.title == f"torch {torch.__version__} (eager)"
    found = runner.run(INPUTS)
    assert found["y"].shape == (2, 3) and found["s"].tolist() == [3, 3]
    (folder / "forge_torch.py").write_text((folder / "forge_torch.py").read_text() + "\nraise ValueError('mine')\n")
    with pytest.raises(Exception, match="mine"):
        open_runner(made, folder)


def test_a_shape_that_the_module_refuses_is_skipped_and_said(stubborn: tuple[Artifact, Path]) -> None:
    _, folder = stubborn
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["warm_up"][0]["x"]["shape"] = [2, 5]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    program = (
        "from pathlib import Path; import sys; sys.path.insert(0, '.'); from forge_torch import Served\n"
        "Served(Path('.').resolve())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "not warmed up with mask [2, 3], x [2, 5]" in done.stdout, done.stderr


def test_compiled_code_is_kept_where_only_this_user_can_write(
    stubborn: tuple[Artifact, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = stubborn
    space: dict[str, Any] = {"__name__": "forge_torch"}
    exec(compile((folder / "forge_torch.py").read_text(), "forge_torch.py", "exec"), space)
    cache_folder = space["cache_folder"]
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(space["tempfile"], "tempdir", str(tmp_path))
    own, other = Path(cache_folder("a", None)), Path(cache_folder("b", None))
    assert own.parent == other.parent and own != other and own.parent.stat().st_mode & 0o077 == 0
    own.parent.chmod(0o777)
    assert Path(cache_folder("a", None)).parent == tmp_path
    assert Path(cache_folder("a", str(tmp_path / "stated"))).parent == tmp_path / "stated"


@pytest.mark.slow
def test_the_compiled_module_answers_as_the_plain_one(run: Run, store: LocalStore, tmp_path: Path) -> None:
    made = run("torch-to-compile", {"mode": "default"}, inputs={"model": module_source(store, "Branch")})
    for path in made.files:
        store.place(made, path, tmp_path / "m" / path)
    compiled, plain = open_runner(made, tmp_path / "m"), open_runner(made, tmp_path / "m", optimise=False)
    assert compiled.title.endswith("(torch.compile, mode default)")
    for rows in (1, 4):
        for sign in (1, -1):
            inputs = {"x": sign * np.ones((rows, 4), np.float32), "mask": np.ones((rows, 3), np.float32)}
            np.testing.assert_allclose(compiled.run(inputs)["y"], plain.run(inputs)["y"], rtol=1e-5)
