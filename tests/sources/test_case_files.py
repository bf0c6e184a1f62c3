from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.tensors import CaseSet
from tritonforge.errors import Place, SpecError
from tritonforge.sources import case_files

SIGNATURE = Signature(
    (
        Tensor("x", "FP32", ("N", 2)),
        Tensor("text", "BYTES", ("N", 1)),
        Tensor("extra", "INT64", ("N", 1), optional=True),
    ),
    (Tensor("y", "INT64", ("N", "k")),),
    True,
)


def packed(folder: Path, *cases: Any) -> CaseSet:
    file = folder / "cases.json"
    file.write_text(json.dumps(list(cases)), encoding="utf-8")
    return case_files.pack(case_files.read([file], folder), SIGNATURE, folder, {"abs": 1.0})


def test_a_case_is_one_item_with_its_expected_answers(tmp_path: Path) -> None:
    (tmp_path / "raw.bin").write_bytes(b"\x00\xff")
    made = packed(
        tmp_path,
        {"inputs": {"x": [1, 2], "text": {"file": "raw.bin"}}, "outputs": {"y": [1, 2, 3]}},
        {"name": "named", "inputs": {"x": [1.5, 2], "text": {"text": "é"}, "extra": [7]}},
        {"inputs": {"x": [1, 2], "text": ["plain"]}},
    )
    assert [case.name for case in made.cases] == ["cases-0", "named", "cases-2"]
    assert all(case.item for case in made.cases)
    assert [case.inputs["text"].tolist() for case in made.cases] == [[b"\x00\xff"], ["é".encode()], [b"plain"]]
    assert made.cases[0].outputs["y"].tolist() == [1, 2, 3]
    assert made.cases[0].inputs["x"].dtype == "float32"
    assert made.tolerance == {"abs": 1.0}


GOOD = {"x": [1, 2], "text": ["a"]}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"outputs": {}}, "no `inputs`"),
        ("text", "no `inputs`"),
        ({"inputs": {**GOOD, "z": [1]}}, "no input 'z'"),
        ({"inputs": GOOD, "outputs": {"z": [1]}}, "no output 'z'"),
        ({"inputs": {"x": [1, 2]}}, "misses inputs"),
        ({"inputs": {**GOOD, "x": [1, 2, 3]}}, "'x' has another shape"),
        ({"inputs": {**GOOD, "x": [[1, 2]]}}, "'x' has another shape"),
        ({"inputs": {**GOOD, "x": ["one", "two"]}}, "'x' is no FP32 tensor"),
        ({"inputs": {**GOOD, "x": [[1], [2, 3]]}}, "'x' is no FP32 tensor"),
        ({"inputs": {**GOOD, "x": {"file": "raw.bin"}}}, "only BYTES are read from files"),
        ({"inputs": {**GOOD, "text": {"file": "missing"}}}, "file that is missing"),
        ({"inputs": {**GOOD, "text": {"file": "../outside"}}}, "outside the spec's folder"),
        ({"inputs": {**GOOD, "text": {"file": "/etc/passwd"}}}, "outside the spec's folder"),
        ({"inputs": {**GOOD, "text": {}}}, "missing"),
    ],
)
def test_a_wrong_case_is_refused_with_its_file(tmp_path: Path, case: Any, message: str) -> None:
    folder = tmp_path / "spec"
    folder.mkdir()
    (tmp_path / "outside").write_text("secret")
    with pytest.raises(SpecError, match=message) as raised:
        packed(folder, case)
    assert raised.value.place is not None
    assert raised.value.place.file == folder / "cases.json"


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SpecError, match="not JSON"):
        case_files.read([tmp_path / "a.json"], tmp_path)


class TestFinding:
    def test_globs_give_each_file_once_in_a_fixed_order(self, tmp_path: Path) -> None:
        for name in ("b.json", "a.json"):
            (tmp_path / name).write_text("[]")
        found = case_files.find(tmp_path, ["*.json", "a.json"], Place())
        assert [path.name for path in found] == ["a.json", "b.json"]

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [("none*.json", "no case file"), ("../*.json", "inside the spec"), ("/etc/*", "inside the spec")],
    )
    def test_a_pattern_without_files_or_out_of_the_folder_is_refused(
        self, tmp_path: Path, pattern: str, message: str
    ) -> None:
        with pytest.raises(SpecError, match=message):
            case_files.find(tmp_path, [pattern], Place())


def test_files_that_cases_read_are_listed(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"")
    cases = [(tmp_path / "c.json", {"inputs": {"text": {"file": "raw"}, "x": [1, 2]}})]
    assert case_files.referenced(cases, tmp_path) == [tmp_path / "raw"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"inputs": GOOD, "outputs": None}, "`outputs` of a case"),
        ({"inputs": GOOD, "output": {"y": [1]}}, "unknown key 'output'"),
        ({"inputs": {**GOOD, "extra": [1.7]}}, "'extra' is no INT64 tensor"),
    ],
)
def test_what_would_be_overlooked_is_refused(tmp_path: Path, case: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        packed(tmp_path, case)
