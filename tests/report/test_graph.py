"""The picture of an ensemble has every box and every wire, nothing overlaps, and wires go down."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.artifact.signature import Signature
from tritonforge.report.graph import draw
from tritonforge.report.layout import GAP, Item, Link, layers_of, place
from tritonforge.report.wiring import EnsembleGraph, GraphStep, Port, Wire, read_graph
from tritonforge.repository.pbtxt import parse

from .making import ENSEMBLE, document


@pytest.fixture
def graph() -> EnsembleGraph:
    signatures = {item["folder"]: Signature.from_json(item["signature"]) for item in document()["models"]}
    return read_graph("both", parse(ENSEMBLE), signatures)


def drawing(graph: EnsembleGraph) -> tuple[ET.Element, str]:
    root = ET.fromstring(draw("graph-0", graph).text)
    return root, " ".join(root.itertext())


def test_wires_are_read_from_the_config_with_types_of_their_makers(graph: EnsembleGraph) -> None:
    wires = {wire.tensor: wire for wire in graph.wires}
    assert wires["token_ids"] == Wire("token_ids", "INT64", (-1,), Port(0, "ids"), (Port(1, "ids"),))
    assert wires["RULE"].targets == (Port(None, "RULE"),)
    assert wires["TEXT"].type == "BYTES[1]"
    assert wires["SCORES"].type == "FP32[-1]"
    assert graph.steps[0].version == 2


def test_every_box_and_every_wire_is_drawn(graph: EnsembleGraph) -> None:
    root, said = drawing(graph)
    assert len(root.findall(".//rect")) == 1 + 2 + 2
    assert len(root.findall(".//path")) == sum(len(wire.targets) for wire in graph.wires) == 4
    for word in ("TEXT", "split", "net", "token_ids", "INT64[-1]", "SCORES", "FP32[-1]", "RULE", "version 2"):
        assert word in said


def test_the_picture_stays_inside_of_its_frame(graph: EnsembleGraph) -> None:
    root, _ = drawing(graph)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in root.findall(".//rect"):
        x, y = float(rect.attrib["x"]), float(rect.attrib["y"])
        assert 0 <= x <= x + float(rect.attrib["width"]) <= width
        assert 0 <= y <= y + float(rect.attrib["height"]) <= height
    for path in root.findall(".//path"):
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path.attrib["d"]):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_an_unwired_or_circular_ensemble_is_drawn_all_the_same() -> None:
    steps = (GraphStep("a", -1, {"x": "p"}, {"y": "q"}), GraphStep("b", 1, {"x": "q"}, {"y": "p"}))
    wires = (
        Wire("p", None, None, Port(1, "y"), (Port(0, "x"),)),
        Wire("q", "FP32", (2,), Port(0, "y"), (Port(1, "x"),)),
        Wire("lost", None, None, None, (Port(None, "lost"),)),
    )
    _, said = drawing(EnsembleGraph("round", ("unused",), ("lost",), steps, wires))
    for word in ("unused", "lost", "newest version", "FP32[2]"):
        assert word in said


def test_an_ensemble_of_nothing_is_an_empty_picture() -> None:
    drawing(EnsembleGraph("void", (), (), (), ()))


def test_hostile_names_are_escaped() -> None:
    name = '"><script>alert(1)</script>'
    graph = EnsembleGraph(name, (name,), (), (), (Wire(name, "FP32", (1,), Port(None, name), ()),))
    assert "<script" not in draw("graph-0", graph).text


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=60))
    )
)
def test_layers_go_down_and_boxes_never_overlap(sized: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = sized
    ids = [f"n{index}" for index in range(count)]
    edges = [(ids[min(a, b)], ids[max(a, b)]) for a, b in pairs if a != b]
    layer = layers_of(edges, ids)
    assert all(layer[above] < layer[below] for above, below in edges)
    items = [Item(one, 30.0 + 10 * (index % 5), layer[one]) for index, one in enumerate(ids)]
    links = [Link(above, below) for above, below in edges if layer[below] == layer[above] + 1]
    layout = place(items, links)
    for row in layout.layers:
        for left, right in itertools.pairwise(layout.items[one] for one in row):
            assert right.x - left.x >= (left.width + right.width) / 2 + GAP - 1e-6
    assert min(item.x - item.width / 2 for item in items) == pytest.approx(0.0, abs=1e-6)


def test_wires_of_a_simple_chain_are_straight() -> None:
    items = [Item("a", 100.0, 0), Item("b", 60.0, 1), Item("c", 140.0, 2)]
    layout = place(items, [Link("a", "b"), Link("b", "c")])
    assert len({round(item.x, 6) for item in layout.items.values()}) == 1
