from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.build.graph import Node
from tritonforge.build.record import BuildRecord, read_record, write_record
from tritonforge.build.scheduler import NodeResult
from tritonforge.errors import CheckFailed


def built(name: str, key: str = "k") -> NodeResult:
    return NodeResult(Node(name, name, "toy", {}), "built", key, "artifact", {"step": "toy", "key": key})


def failed(name: str) -> NodeResult:
    return NodeResult(Node(name, name, "toy", {}), "failed", "new", None, {}, error=CheckFailed("x"))


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = BuildRecord({"a": {"key": "k", "material": {"step": "toy"}}}, "composed", "release")
    write_record(tmp_path / "deep" / "r.json", record)
    found = read_record(tmp_path / "deep" / "r.json")
    assert found == record
    assert (found.keys(), found.material()) == (["k"], {"a": {"step": "toy"}})


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{", '{"nodes": 3}', "{}", '{"nodes": {"a": {"kez": "k", "material": {}}}}']
)
def test_a_lost_or_damaged_record_is_an_empty_one(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "r").write_text(text)
    assert read_record(tmp_path / "r") == BuildRecord()


@pytest.mark.parametrize(
    ("whole", "left"), [(True, {"a": "new", "b": "old"}), (False, {"a": "new", "b": "old", "c": "old"})]
)
def test_what_failed_keeps_its_last_good_entry(whole: bool, left: dict[str, str]) -> None:
    record = BuildRecord()
    record.update({name: built(name, "old") for name in "abc"}, whole=True)
    record.update({"a": built("a", "new"), "b": failed("b")}, whole=whole)
    assert {name: node["key"] for name, node in record.nodes.items()} == left
