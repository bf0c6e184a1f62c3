"""Whatever signature a model has: what is built of it loads, and the server's metadata is that signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from onnx import helper

from tritonforge.actions.build import BuildOptions, build
from tritonforge.actions.live import LiveServer, ServerChoice, open_server
from tritonforge.actions.loading import load_all
from tritonforge.actions.validate import validate_entry
from tritonforge.actions.workspace import open_workspace
from tritonforge.repository.release import Release
from tritonforge.triton.client import Client
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

# ONNX's number of each type that ONNX Runtime and Triton share, by Triton's name.
TYPES = {
    "BOOL": 9,
    "UINT8": 2,
    "UINT16": 4,
    "UINT32": 12,
    "UINT64": 13,
    "INT8": 3,
    "INT16": 5,
    "INT32": 6,
    "INT64": 7,
    "FP16": 10,
    "FP32": 1,
    "FP64": 11,
    "BYTES": 8,
}
WIDER = ("FP32", "FP64")
"""What everything but text can be cast to without a value that the type lacks."""
ODD = "aZ9_./:-+ ()[]{}#@,;*?!%&=<>|~^$'\"\\`éß日本🙂"
NAMES = st.one_of(
    st.text("abcdef_0123", min_size=1, max_size=6),
    st.text(ODD, min_size=1, max_size=12),
    st.sampled_from(["input:0", "serving_default/x:0", "model.layers.0.out", "0", "-1", "batch", "name", "None", " "]),
)

Size = int | str | None
"""A fixed size, the name of a dynamic axis, or a dynamic axis without a name."""


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output as the model's file declares it."""

    name: str
    datatype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A model that hands each input on, as it is or cast."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def batched(self) -> bool:
        """Axis 0 is dynamic everywhere and rows stand alone: that is what a batch is."""
        return all(value.shape and not isinstance(value.shape[0], int) for value in (*self.inputs, *self.outputs))

    def proto(self) -> onnx.ModelProto:
        def infos(values: tuple[Value, ...]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(item.name, TYPES[item.datatype], item.shape) for item in values]

        nodes = [
            helper.make_node("Identity", [source.name], [target.name])
            if source.datatype == target.datatype
            else helper.make_node("Cast", [source.name], [target.name], to=TYPES[target.datatype])
            for source, target in zip(self.inputs, self.outputs, strict=True)
        ]
        graph = helper.make_graph(nodes, "g", infos(self.inputs), infos(self.outputs))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def metadata(self, values: tuple[Value, ...]) -> list[tuple[str, str, list[int]]]:
        """What Triton shall say: dynamic axes as -1; one element for what has no axis of its own but the batch."""
        said = []
        for value in values:
            shape = [size if isinstance(size, int) else -1 for size in value.shape]
            if len(shape) == (1 if self.batched else 0):
                shape.append(1)
            said.append((value.name, value.datatype, shape))
        return said


@st.composite
def models(draw: st.DrawFn) -> Made:
    """One to four inputs of any type and rank up to 3; with a batch axis, or with any axes."""
    count = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=2 * count, max_size=2 * count, unique=True))
    batch = draw(st.sampled_from([None, "batch", "N"]))
    size = st.one_of(st.integers(1, 4), st.sampled_from(["seq", "height", "unk__12"]), st.none())
    inputs, outputs = [], []
    for name, answer in zip(names[:count], names[count:], strict=True):
        axes = draw(st.lists(size, max_size=2 if batch else 3))
        shape = (batch, *axes) if batch else tuple(axes)
        datatype = draw(st.sampled_from(sorted(TYPES)))
        cast = datatype if datatype == "BYTES" else draw(st.sampled_from([datatype, *WIDER]))
        inputs.append(Value(name, datatype, shape))
        outputs.append(Value(answer, cast, shape))
    return Made(tuple(inputs), tuple(outputs))


def drawn(count: int) -> list[Made]:
    """So many examples, the same ones each time: they share a build and a server, so that none is shrunk.

    Hypothesis begins with the simplest and varies what it has: of five times as many, these lie far apart.
    """
    found: list[Made] = []

    @settings(
        max_examples=5 * count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(models())
    def take(made: Made) -> None:
        found.append(made)

    take()
    different = list(dict.fromkeys(found))
    return different[-1 :: -(len(different) // count)][:count]


@pytest.mark.parametrize("count", [12, pytest.param(150, marks=pytest.mark.exhaustive)])
def test_the_served_metadata_is_the_signature(count: int, runtime: Runtime, tmp_path: Path, home: Path) -> None:
    home.mkdir()
    (home / "runtimes").symlink_to(runtime.root.parent)
    made = {f"m{index}": model for index, model in enumerate(drawn(count))}
    assert len(made) == count
    assert {model.batched for model in made.values()} == {True, False}
    for name, model in made.items():
        onnx.save(model.proto(), tmp_path / f"{name}.onnx")
    spec: dict[str, Any] = {
        "apiVersion": "tritonforge/v1",
        "name": "signatures",
        "server": {"options": {"disable-auto-complete-config": True}},
        "models": {name: {"source": f"{name}.onnx"} for name in made},
    }
    (tmp_path / "forge.yaml").write_text(yaml.safe_dump(spec))
    workspace = open_workspace(tmp_path / "forge.yaml")
    (outcome,) = build(workspace, BuildOptions()).platforms
    assert not outcome.failures, "\n\n".join(f"{made[one.model]}\n{one.error}" for one in outcome.failures)
    release = outcome.release
    assert release is not None
    with open_server(workspace, release, ServerChoice(), explicit=True) as server:
        wrong = _wrong(release, server, made)
    assert not wrong, "\n\n".join(f"{made[name]}\n{said}" for name, said in wrong.items())
    print(f"{count} models with {sum(len(model.inputs) for model in made.values())} inputs served as they are")


def _wrong(release: Release, server: LiveServer, made: Mapping[str, Made]) -> dict[str, Any]:
    """What a model's metadata or its answers differ in, by its name."""
    wrong: dict[str, Any] = {}
    loaded = load_all(release, server, lambda text: None)
    for entry in release.models():
        name, model = entry["name"], made[entry["name"]]
        proven = validate_entry(release, entry, server, loaded[name])
        if not proven.ok or not proven.cases:
            wrong[name] = [*proven.problems, *(f"{case.case}: {case.reason}" for case in proven.cases if not case.ok)]
            continue
        for protocol in ("http", "grpc"):
            with Client(server.connection.over(protocol)) as client:
                served = client.model_metadata(name)
            for side, values in (("inputs", model.inputs), ("outputs", model.outputs)):
                said = [
                    (item["name"], item["datatype"], [int(size) for size in item["shape"]]) for item in served[side]
                ]
                if said != model.metadata(values):
                    wrong[name] = f"{side} over {protocol}: {said} instead of {model.metadata(values)}"
        if (server.client.model_config(name).max_batch_size > 0) != model.batched:
            wrong[name] = f"batched: {not model.batched} instead of {model.batched}"
    return wrong
