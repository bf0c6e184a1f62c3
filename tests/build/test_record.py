from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tritonforge.artifact.store import LocalStore
from tritonforge.build.graph import Graph, Node
from tritonforge.build.key import key_of
from tritonforge.build.record import BuildRecord, read_record, write_record
from tritonforge.build.scheduler import NodeResult
from tritonforge.errors import CheckFailed


def built(name: str, key: str = "k") -> NodeResult:
    return NodeResult(Node(name, name, "toy", {}), "built", key, "artifact", {"step": "toy", "key": key})


def failed(name: str) -> NodeResult:
    return NodeResult(Node(name, name, "toy", {}), "failed", "new", None, {}, error=CheckFailed("x"))


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    record = BuildRecord({"a": {"key": "k", "material": {"step": "toy"}, "artifact": "art"}}, "composed", "release")
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


class TestRecall:
    @pytest.fixture
    def graph(self) -> Graph:
        first = Node("a/collect", "a", "collect", {"a": 1})
        return Graph({node.id: node for node in (first, Node("b/collect", "b", "collect", {}, {"in": first.id}))})

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store").open()

    @pytest.fixture
    def record(self, graph: Graph, store: LocalStore) -> BuildRecord:
        """Of a build of the graph, whose keys the store has."""
        record, artifacts = BuildRecord(), {"a/collect": "1" * 64, "b/collect": "2" * 64}
        results = {}
        for node in graph.nodes.values():
            keyed = key_of(node, {role: artifacts[other] for role, other in node.inputs.items()})
            results[node.id] = NodeResult(node, "built", keyed.key, artifacts[node.id], keyed.material)
            file = store.root / "keys" / keyed.key[:2] / f"{keyed.key}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        record.update(results, whole=True)
        return record

    def test_what_did_not_change_is_known(self, record: BuildRecord, graph: Graph, store: LocalStore) -> None:
        found = record.recall(graph, store)
        assert found is not None
        assert {name: (result.status, result.artifact) for name, result in found.items()} == {
            "a/collect": ("cached", "1" * 64),
            "b/collect": ("cached", "2" * 64),
        }
        assert {result.key for result in found.values()} == set(record.keys())

    @pytest.mark.parametrize("change", ["config", "a node more", "an artifact", "the store"])
    def test_one_change_forgets_all(self, record: BuildRecord, graph: Graph, store: LocalStore, change: str) -> None:
        if change == "config":
            graph.nodes["a/collect"] = replace(graph.nodes["a/collect"], config={"a": 2})
        elif change == "a node more":
            graph.nodes["c/collect"] = Node("c/collect", "c", "collect", {})
        elif change == "an artifact":
            record.nodes["a/collect"]["artifact"] = "3" * 64
        else:
            next((store.root / "keys").glob("*/*.json")).unlink()
        assert record.recall(graph, store) is None
