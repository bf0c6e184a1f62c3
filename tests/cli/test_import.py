"""`tritonforge import` as people and machines read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from actions.making_repository import LAYOUTS, write_files, write_repository

from cli.commands import Workshop, errors_said

CHOSEN = ("resnet_plan", "large_onnx", "pipeline", "decode_dali", "densenet_onnx")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = write_repository(tmp_path / "old", {name: LAYOUTS[name] for name in CHOSEN})
    return write_files(made, {"README.md": "x"})


def test_it_lists_what_it_took_and_what_it_left(workshop: Workshop, repository: Path) -> None:
    done = workshop.run("import", repository)
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert any(line.startswith("resnet_plan tensorrt 1, (2), 3 given, and quick 7") for line in lines)
    assert any(line.startswith("large_onnx onnxruntime 1 left to the server 2") for line in lines)
    assert lines[-1] == "wrote forge.yaml; next: tritonforge build"
    assert "left: README.md: no folder: Triton does not read it" in done.err
    assert workshop.build()["new"] is True


def test_json_is_one_object(workshop: Workshop, repository: Path) -> None:
    said = workshop.json("import", repository, "--into", workshop.folder / "new")
    assert said["written"] is True and said["spec"] == str(workshop.folder / "new" / "forge.yaml")
    assert [item["path"] for item in said["left"]] == ["README.md"]
    (plan,) = [model for model in said["models"] if model["name"] == "resnet_plan"]
    assert plan == {
        "name": "resnet_plan",
        "backend": "tensorrt",
        "versions": [1, 2, 3],
        "served": [1, 3],
        "config": True,
        "config_variants": ["quick"],
        "files": 7,
        "bytes": sum(file.stat().st_size for file in (repository / "resnet_plan").rglob("*") if file.is_file()),
    }
    assert workshop.build("--spec", str(workshop.folder / "new" / "forge.yaml"))["new"] is True


def test_a_dry_run_says_the_same_and_writes_nothing(workshop: Workshop, repository: Path) -> None:
    planned = workshop.json("import", repository, "--dry-run")
    assert list(workshop.folder.iterdir()) == []
    done = workshop.json("import", repository)
    same = ("models", "left", "warnings", "spec")
    assert [planned[key] for key in same] == [done[key] for key in same]
    assert (planned["written"], done["written"]) == (False, True)


@pytest.mark.parametrize(
    "words", [["nowhere"], ["old/pipeline"], ["old", "--into", "old/inside"], ["old", "--triton", "x"]]
)
def test_one_clear_error_and_exit_code_2(workshop: Workshop, repository: Path, words: list[str]) -> None:
    done = workshop.run("import", *words, cwd=repository.parent)
    assert done.code == 2
    assert errors_said(done.err) == 1 and "Traceback" not in done.err
    assert not (repository.parent / "forge.yaml").exists()
