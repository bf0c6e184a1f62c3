from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.build import key as key_module
from tritonforge.build.facets import facet
from tritonforge.build.graph import Node
from tritonforge.build.key import key_of, tool_version, why
from tritonforge.errors import EnvironmentLacks
from tritonforge.sources.resolve import SourceFile
from tritonforge.steps.step import Needs


class Step:
    """A step whose declarations the tests change."""

    name = "fake"

    def __init__(self, version: int = 1, needs: Needs | None = None) -> None:
        self.version = version
        self._needs = needs or Needs(tools=("numpy",), facets=("processor",))

    def needs(self, config: Any, input_bytes: int) -> Needs:
        return self._needs

    def run(self, job: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    state: dict[str, Any] = {
        "step": Step(),
        "tools": {"numpy": "1", "onnx": "1"},
        "facets": {"processor": "x", "gpu": "y"},
    }
    monkeypatch.setattr(key_module, "step", lambda name: state["step"])
    monkeypatch.setattr(key_module, "tool_version", lambda name: state["tools"][name])
    monkeypatch.setattr(key_module, "facet", lambda name: state["facets"][name])
    return state


def source(content: str = "a", path: str = "/here/net.onnx") -> SourceFile:
    return SourceFile(Path(path), content * 64, 1)


NODE = Node("m/fake", "m", "fake", {"a": 1, "b": [1, 2]}, {"model": "m/other"}, {"model.onnx": source()})
INPUTS = {"model": "d" * 64}


def key(node: Node = NODE, inputs: dict[str, str] = INPUTS) -> str:
    return key_of(node, inputs).key


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (replace(NODE, id="n/fake", model="n"), INPUTS),
        (replace(NODE, config={"b": [1, 2], "a": 1}), INPUTS),
        (replace(NODE, sources={"model.onnx": source(path="/elsewhere/other.onnx")}), INPUTS),
        (replace(NODE, inputs={"model": "another-node"}), INPUTS),
    ],
    ids=["name", "order of keys", "where the source lies", "which node made the input"],
)
def test_what_does_not_change_the_result_does_not_change_the_key(
    fake: dict[str, Any], node: Node, inputs: dict[str, str]
) -> None:
    assert key(node, inputs) == key()


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (replace(NODE, config={"a": 2, "b": [1, 2]}), INPUTS),
        (replace(NODE, config={"a": 1, "b": [2, 1]}), INPUTS),
        (replace(NODE, config={"a": 1, "b": [1, 2], "c": None}), INPUTS),
        (replace(NODE, config={"a": "1", "b": [1, 2]}), INPUTS),
        (replace(NODE, sources={"model.onnx": source("b")}), INPUTS),
        (replace(NODE, sources={"other.onnx": source()}), INPUTS),
        (replace(NODE, sources={}), INPUTS),
        (replace(NODE, step="other"), INPUTS),
        (NODE, {"model": "e" * 64}),
        (NODE, {"golden": "d" * 64}),
    ],
)
def test_everything_that_could_change_the_result_changes_the_key(
    fake: dict[str, Any], node: Node, inputs: dict[str, str]
) -> None:
    assert key(node, inputs) != key()


@pytest.mark.parametrize(
    ("change", "changes_the_key"),
    [
        (lambda state: state.update(step=Step(version=2)), True),
        (lambda state: state["tools"].update(numpy="2"), True),
        (lambda state: state["tools"].update(onnx="2"), False),  # the step does not declare it
        (lambda state: state["facets"].update(processor="z"), True),
        (lambda state: state["facets"].update(gpu="z"), False),
        (lambda state: state.update(step=Step(needs=Needs(tools=("numpy", "onnx"), facets=("processor",)))), True),
        (
            lambda state: state.update(step=Step(needs=Needs(9, 1 << 40, tools=("numpy",), facets=("processor",)))),
            False,
        ),
    ],
    ids=["step version", "tool", "undeclared tool", "facet", "undeclared facet", "declares more", "cores and memory"],
)
def test_declared_dependencies_enter_the_key_and_no_others(
    fake: dict[str, Any], change: Any, changes_the_key: bool
) -> None:
    before = key()
    change(fake)
    assert (key() != before) is changes_the_key


configs = st.dictionaries(
    st.sampled_from("abc"),
    st.none() | st.integers(0, 2) | st.booleans() | st.sampled_from(["", "1"]) | st.lists(st.integers(0, 1)),
    max_size=3,
)


@given(configs, configs)
def test_configurations_have_one_key_each(a: dict[str, Any], b: dict[str, Any]) -> None:
    keys = [key_of(Node("m/collect", "m", "collect", config), {}).key for config in (a, b)]
    assert (keys[0] == keys[1]) == (repr(sorted(a.items())) == repr(sorted(b.items())))


MATERIAL: dict[str, Any] = {
    "step": "fake",
    "step_version": 1,
    "configuration": {"a": 1},
    "inputs": {"model": "d" * 64},
    "sources": {"model.onnx": "a" * 64},
    "tools": {"numpy": "1.0"},
    "facets": {"processor": "x"},
}


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (None, ["it was never built"]),
        ({}, ["its artefact is no longer in the store"]),
        ({"step_version": 0}, ["the step fake is new (version 1)"]),
        ({"configuration": {"a": 0}}, ["configuration 'a' changed: 0 → 1"]),
        ({"configuration": {}}, ["configuration 'a' is new"]),
        ({"configuration": {"a": 1, "b": 2}}, ["configuration 'b' is gone"]),
        ({"sources": {"model.onnx": "b" * 64}}, ["source 'model.onnx' changed (bbbbbbbb → aaaaaaaa)"]),
        ({"inputs": {"model": "c" * 64}}, ["input 'model' changed (cccccccc → dddddddd)"]),
        ({"tools": {"numpy": "0.9"}}, ["tool 'numpy' changed: 0.9 → 1.0"]),
        ({"facets": {"processor": "w"}}, ["hardware 'processor' changed: w → x"]),
        (
            {"configuration": {"a": 0}, "tools": {"numpy": "0.9"}},
            ["configuration 'a' changed: 0 → 1", "tool 'numpy' changed: 0.9 → 1.0"],
        ),
        ({"configuration": {"a": "x" * 99}}, [f"configuration 'a' changed: {'x' * 57}… → 1"]),
    ],
)
def test_why_a_step_runs_is_said_in_words(change: dict[str, Any] | None, reasons: list[str]) -> None:
    assert why(MATERIAL, None if change is None else {**MATERIAL, **change}) == reasons


def test_the_key_and_its_material_agree(fake: dict[str, Any]) -> None:
    made = key_of(NODE, INPUTS)
    assert len(made.key) == 64
    assert why(made.material, made.material) == ["its artefact is no longer in the store"]


def test_tools_have_versions_or_are_missing() -> None:
    import numpy

    assert tool_version("numpy") == numpy.__version__
    with pytest.raises(EnvironmentLacks, match="not installed") as raised:
        tool_version("no-such-tool")
    assert raised.value.hint == "pip install no-such-tool"


def test_facets_are_of_this_machine_or_unknown() -> None:
    import platform

    assert facet("processor").startswith(platform.machine())
    with pytest.raises(EnvironmentLacks, match="does not know"):
        facet("colour")


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "torch"), ("transformers", "huggingface"), ("openvino", "openvino")]
)
def test_a_missing_framework_names_the_extra_that_brings_it(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    tool_version.cache_clear()
    with pytest.raises(EnvironmentLacks) as caught:
        tool_version(package)
    tool_version.cache_clear()
    assert f"tritonforge[{extra}]" in str(caught.value.hint)
