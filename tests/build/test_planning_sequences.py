"""The graph of a model that remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import making_onnx
import pytest
from steps import making_stateful

from tritonforge.artifact.digest import FileDigests
from tritonforge.build.graph import Graph
from tritonforge.build.planning import plan_graph
from tritonforge.errors import SpecError
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.load import load
from tritonforge.spec.lock import Lock
from tritonforge.spec.platform import resolve_platform

SEQUENCE = 'sequence: {states: {h: h_after}, context: {x: 2}, constants: {rate: 3}}, inputs: {x: "FP32[4]"}'


@pytest.fixture
def plan(write_spec: Callable[..., Path], tmp_path: Path) -> Callable[[str], Graph]:
    making_onnx.save(tmp_path / "spec" / "net.onnx", making_stateful.remembering())

    def make(model: str) -> Graph:
        loaded = load(write_spec(f"models:\n  net: {{source: net.onnx, {model}}}\n"))
        resolver = Resolver(loaded.folder, tmp_path / "packages", FileDigests(tmp_path / "d.sqlite"), Lock())
        return plan_graph(loaded, resolve_platform("local", loaded.spec.platforms["local"]), resolver)

    return make


def test_the_source_is_the_reference_and_the_graph_with_states_is_what_goes_on(plan: Callable[[str], Graph]) -> None:
    graph = plan(f"{SEQUENCE}, simplify: true")
    assert {name: (node.step, dict(node.inputs)) for name, node in graph.nodes.items()} == {
        "net/import-onnx": ("import-onnx", {}),
        "net/golden": ("golden-sequences", {"model": "net/import-onnx"}),
        "net/stateful": ("stateful", {"model": "net/import-onnx"}),
        "net/simplify": ("simplify", {"model": "net/stateful"}),
        "net/parity": ("parity", {"model": "net/simplify", "golden": "net/golden"}),
    }
    # What the spec says of `x` is about the chunk that clients send, not about what the source takes.
    assert graph.nodes["net/import-onnx"].config["inputs"] == {}
    assert graph.nodes["net/stateful"].config["inputs"]["x"]["type"] == "FP32[4]"


def test_how_long_a_sequence_may_idle_builds_nothing_again(plan: Callable[[str], Graph]) -> None:
    first, second = plan(SEQUENCE), plan(SEQUENCE.replace("states:", "idle_s: 5, candidates: 3, states:"))
    assert first.nodes["net/stateful"].config == second.nodes["net/stateful"].config


@pytest.mark.parametrize(
    ("more", "batched"),
    [("", None), (", batched: false", False), (", max_batch_size: 0", False), (", batched: true", True)],
)
def test_without_a_batch_every_sequence_has_the_model_to_itself(
    plan: Callable[[str], Graph], more: str, batched: bool | None
) -> None:
    assert plan(SEQUENCE + more).nodes["net/stateful"].config["batched"] is batched


def test_other_backends_are_refused(plan: Callable[[str], Graph]) -> None:
    (error,) = plan(f"{SEQUENCE}, backend: openvino").errors.values()
    assert isinstance(error, SpecError)
    assert error.message == "`sequence` gives states to an ONNX graph for the onnxruntime backend"
    assert error.found == "openvino"
