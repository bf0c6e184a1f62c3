"""Reference cases get the names that clients see."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tritonforge.actions.served_cases import renamed_cases
from tritonforge.artifact.tensors import CASES, Case, CaseSet, read_cases, write_cases


def test_only_names_change(tmp_path: Path) -> None:
    value = np.float32([[1, 2]])
    case = Case("small", {"x": value}, {"x": value + 1})
    write_cases(tmp_path, CaseSet("the source", (case,), {"x": "FP32"}, {"abs": 0.1}))
    names = {"inputs": {"x": "INPUT__0"}, "outputs": {"x": "OUTPUT__0"}}
    (tmp_path / CASES).write_bytes(renamed_cases((tmp_path / CASES).read_bytes(), names))
    found = read_cases(tmp_path)
    assert (found.reference, found.tolerance) == ("the source", {"abs": 0.1})
    assert found.cases[0].inputs["INPUT__0"].tolist() == [[1, 2]]
    assert found.cases[0].outputs["OUTPUT__0"].tolist() == [[2, 3]]
