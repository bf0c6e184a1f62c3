from __future__ import annotations

import json
from pathlib import Path

import making_onnx as making
import pytest

from tritonforge.actions.build import BuildOptions, build
from tritonforge.actions.load_data import load_data
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import CheckFailed, UsageError
from tritonforge.repository.release import Release

SPEC = "apiVersion: tritonforge/v1\nname: tiny\nmodels:\n  net: {source: net.onnx, max_batch_size: 4, GOLDEN}\n"


@pytest.fixture
def release(home: Path, tmp_path: Path) -> Release:
    folder = tmp_path / "spec"
    folder.mkdir()
    making.save(folder / "net.onnx", making.dynamic_text())
    (folder / "forge.yaml").write_text(SPEC.replace("GOLDEN", "golden: {axes: {seq: [2, 9]}}"))
    (outcome,) = build(open_workspace(folder / "forge.yaml"), BuildOptions(jobs=1)).platforms
    assert outcome.release is not None, outcome.failures
    return outcome.release


@pytest.mark.parametrize(("axes", "size"), [({}, 9), ({"seq": 5}, 5), ({"seq": 20}, 20)])
def test_a_dynamic_model_is_asked_at_its_largest_size_or_the_one_that_is_wanted(
    release: Release, tmp_path: Path, axes: dict[str, int], size: int
) -> None:
    file, shapes = load_data(release, "net", tmp_path, batch_size=1, axes=axes, asking="the test")
    assert size in shapes["x"]
    assert len(json.loads(file.read_text())["data"]) == 1


def test_an_unknown_axis_is_told(release: Release, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic axis 'seqq'"):
        load_data(release, "net", tmp_path, batch_size=1, axes={"seqq": 5}, asking="the test")


def test_a_larger_batch_than_the_model_takes_is_told(release: Release, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="the test asks for larger batches"):
        load_data(release, "net", tmp_path, batch_size=8, axes={}, asking="the test")
