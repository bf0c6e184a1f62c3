"""``collect`` and ``import-python``: files as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.conftest import Run
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed, InternalError

SIGNATURE = Signature((Tensor("x", "FP32", ("batch", 4)),), (Tensor("y", "FP32", ("batch", 4)),), True)
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def write(path: Path, text: str = "text") -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_files_get_the_paths_that_they_are_named_by(run: Run, store: LocalStore, tmp_path: Path) -> None:
    made = run("collect", {}, sources={"labels.txt": write(tmp_path / "a"), "warmup/in": write(tmp_path / "b", "B")})
    assert (made.format, made.signature) == ("files", None)
    assert {path: store.blob(entry.sha256).read_text() for path, entry in made.files.items()} == {
        "labels.txt": "text",
        "warmup/in": "B",
    }
    assert (tmp_path / "a").stat().st_nlink == 1, "a source shares its bytes with nobody"


def test_no_file_leaves_its_artefact(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="leaves its folder"):
        run("collect", {}, sources={"../x": write(tmp_path / "a")})
    assert not (tmp_path / "home" / "store" / "staging" / "x").exists()


def test_a_python_model_is_packed_with_its_requirements(run: Run, store: LocalStore, tmp_path: Path) -> None:
    config = {"signature": SIGNATURE.to_json(), "requirements": ["numpy", "pillow>=10"]}
    made = run("import-python", config, sources={"model.py": write(tmp_path / "m.py", MODEL)})
    assert sorted(made.files) == ["model.py", "requirements.txt"]
    assert store.blob(made.files["requirements.txt"].sha256).read_text() == "numpy\npillow>=10\n"
    assert made.signature == SIGNATURE


def test_requirements_of_the_spec_come_after_its_own_file(run: Run, store: LocalStore, tmp_path: Path) -> None:
    sources = {"model.py": write(tmp_path / "m.py", MODEL), "requirements.txt": write(tmp_path / "r", "mine\n")}
    made = run("import-python", {"signature": SIGNATURE.to_json(), "requirements": ["mine", "numpy"]}, sources=sources)
    assert store.blob(made.files["requirements.txt"].sha256).read_text() == "mine\nnumpy\n"
    assert (tmp_path / "r").read_text() == "mine\n"


@pytest.mark.parametrize("text", ["", "class Other: pass\n", "def broken(:\n", "class TritonPythonModel:\n    pass\n"])
def test_what_triton_cannot_call_is_refused_without_running_it(run: Run, tmp_path: Path, text: str) -> None:
    ran = tmp_path / "ran"
    source = write(tmp_path / "m.py", f"open({str(ran)!r}, 'w')\n{text}")
    with pytest.raises(CheckFailed):
        run("import-python", {"signature": SIGNATURE.to_json(), "requirements": []}, sources={"model.py": source})
    assert not ran.exists()
