from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import making_onnx as making
import pytest

from steps.conftest import Run, golden_config
from tritonforge.actions.replay import replay
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.artifact.tensors import read_cases
from tritonforge.errors import CheckFailed, SpecError


@pytest.fixture
def kept(run: Run, import_onnx: Callable[..., Artifact], tmp_path: Path) -> Path:
    """The folder that a failed comparison names: a model that adds 2, held to the answers of one that adds 1."""
    golden = run("golden", golden_config(), inputs={"model": import_onnx(making.batched_add(1.0))})
    other = import_onnx(making.batched_add(2.0))
    with pytest.raises(CheckFailed) as caught:
        run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": other, "golden": golden})
    command = next(text for text in caught.value.details if "tritonforge replay" in text)
    return Path(command.split("tritonforge replay ")[1].strip("'"))


def test_failing_cases_are_kept_and_fail_again(kept: Path, store: LocalStore) -> None:
    result = replay(kept, store)
    assert not result.ok
    assert {row.case for row in result.rows} == {"batch1-small", "batch3-small", "batch4-small"}
    assert all(row.difference.max_abs == pytest.approx(1, abs=1e-5) for row in result.rows)
    found = read_cases(kept / "found").cases[0]
    expected = read_cases(kept).cases[0]
    assert (found.outputs["y"] - expected.outputs["y"]).mean() == pytest.approx(1, abs=1e-5)


def test_a_folder_without_kept_cases_is_told(tmp_path: Path, store: LocalStore) -> None:
    with pytest.raises(SpecError, match="no kept cases"):
        replay(tmp_path, store)


def test_an_artefact_that_is_gone_is_told(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no longer in the store"):
        replay(kept, LocalStore(tmp_path / "other").open())
