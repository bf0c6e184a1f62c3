"""An ensemble as a picture: its inputs, steps and outputs in layers, every wire with its tensor's name and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tritonforge.report.layout import Item, Layout, Link, layers_of, place
from tritonforge.report.svg import Child, Drawn, clipped, element, picture, width_of, words
from tritonforge.report.wiring import EnsembleGraph, Port, Wire

BOX: Final = 62.0
END: Final = 40.0
ROW: Final = 132.0
MARGIN: Final = 16.0
_LONGEST: Final = 30


@dataclass(frozen=True, slots=True)
class _Box:
    """A box to draw: ``ports_in`` and ``ports_out`` are the model's own names, from left to right."""

    id: str
    kind: str
    title: str
    subtitle: str
    ports_in: tuple[str, ...]
    ports_out: tuple[str, ...]
    slots_in: tuple[float, ...]
    slots_out: tuple[float, ...]

    @property
    def width(self) -> float:
        texts = max(width_of(self.title), width_of(self.subtitle)) + 24
        return max(texts, sum(self.slots_in) + 12, sum(self.slots_out) + 12, 84.0)

    def offset(self, name: str, *, above: bool) -> float:
        """Where a port is, from the box's middle."""
        names, slots = (self.ports_in, self.slots_in) if above else (self.ports_out, self.slots_out)
        index = names.index(name)
        return sum(slots[:index]) + slots[index] / 2 - sum(slots) / 2


def draw(ident: str, graph: EnsembleGraph) -> Drawn:
    """The picture of an ensemble; its description says every step's wires in words."""
    boxes = {box.id: box for box in _boxes(graph)}
    layout, routes = _lay_out(graph, boxes)
    shift = MARGIN + max((width_of(_type_label(wire)) for wire in graph.wires), default=0.0) / 2
    width = layout.width + 2 * shift
    height = 2 * MARGIN + ROW * (max(len(layout.layers), 1) - 1) + BOX
    lines: list[Child] = []
    labels: list[Child] = []
    for wire, paths in routes:
        for path in paths:
            lines.append(_curve([(x + shift, y) for x, y in path]))
        if paths:
            labels += _label(wire, paths[0][0][0] + shift, paths[0][0][1])
    drawn = [_draw_box(box, layout.items[box.id].x + shift, _y(layout.items[box.id].layer)) for box in boxes.values()]
    title = f"The ensemble {graph.folder}"
    return picture(ident, width, height, title, _in_words(graph), *lines, *drawn, *labels)


def _boxes(graph: EnsembleGraph) -> list[_Box]:
    wires = {wire.tensor: wire for wire in graph.wires}

    def slot(name: str, tensor: str) -> float:
        wire = wires.get(tensor)
        texts = [_short(name), _short(tensor), "" if wire is None else _type_label(wire)]
        return max(map(width_of, texts)) + 16

    made = [
        _Box(f"in:{name}", "end", _short(name), "input", (), (name,), (), (slot(name, name),)) for name in graph.inputs
    ]
    for index, step in enumerate(graph.steps):
        version = "newest version" if step.version < 0 else f"version {step.version}"
        into, out = step.input_map, step.output_map
        made.append(
            _Box(
                f"step:{index}",
                "step",
                _short(step.model),
                version,
                tuple(into),
                tuple(out),
                tuple(slot(name, tensor) for name, tensor in into.items()),
                tuple(slot(name, tensor) for name, tensor in out.items()),
            )
        )
    made += [
        _Box(f"out:{name}", "end", _short(name), "output", (name,), (), (slot(name, name),), ())
        for name in graph.outputs
    ]
    return made


def _box_id(port: Port, *, source: bool) -> str:
    if port.step is not None:
        return f"step:{port.step}"
    return f"{'in' if source else 'out'}:{port.name}"


Route = list[tuple[float, float]]


def _lay_out(graph: EnsembleGraph, boxes: dict[str, _Box]) -> tuple[Layout, list[tuple[Wire, list[Route]]]]:
    """Places of all boxes, and for each wire the points that it passes on its way to each reader."""
    joined = [
        (_box_id(wire.source, source=True), _box_id(target, source=False))
        for wire in graph.wires
        if wire.source is not None
        for target in wire.targets
    ]
    layer = layers_of(joined, list(boxes))
    last = max((layer[f"out:{name}"] for name in graph.outputs), default=0)
    layer.update({f"out:{name}": max(last, 1) for name in graph.outputs})
    items = [Item(box.id, box.width, layer[box.id]) for box in boxes.values()]
    links: list[Link] = []
    ways: list[tuple[Wire, list[list[tuple[str, float]]]]] = []
    for index, wire in enumerate(graph.wires):
        passed: dict[int, str] = {}  # dummies are shared by all readers of one tensor
        reached: list[list[tuple[str, float]]] = []
        for target in wire.targets if wire.source is not None else ():
            assert wire.source is not None
            top, bottom = _box_id(wire.source, source=True), _box_id(target, source=False)
            way = [(top, boxes[top].offset(wire.source.name, above=False))]
            for between in range(layer[top] + 1, layer[bottom]):
                if between not in passed:
                    passed[between] = f"pass:{index}:{between}"
                    items.append(Item(passed[between], 20.0, between))
                    links.append(Link(way[-1][0], passed[between], way[-1][1]))
                way.append((passed[between], 0.0))
            offset = boxes[bottom].offset(target.name, above=True)
            if layer[bottom] == layer[way[0][0]] + len(way):
                links.append(Link(way[-1][0], bottom, way[-1][1], offset))
            reached.append([*way, (bottom, offset)])
        ways.append((wire, reached))
    layout = place(items, links)
    return layout, [(wire, [_route(layout, way) for way in reached]) for wire, reached in ways]


def _route(layout: Layout, way: Sequence[tuple[str, float]]) -> Route:
    points: Route = []
    for index, (one, offset) in enumerate(way):
        item = layout.items[one]
        y = _y(item.layer)
        if index > 0:
            points.append((item.x + offset, y))
        if index < len(way) - 1:
            points.append((item.x + offset, y + BOX))
    return points


def _y(layer: int) -> float:
    return MARGIN + layer * ROW


def _curve(points: Route) -> Drawn:
    """Straight down past the label, then bent to where the next box is."""
    path = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        if x1 == x2 or y2 - y1 <= BOX:
            path.append(f"L{x2:.1f},{y2:.1f}")
            continue
        bend = min(y1 + 34, y2)
        middle = (bend + y2) / 2
        path.append(f"L{x1:.1f},{bend:.1f}C{x1:.1f},{middle:.1f} {x2:.1f},{middle:.1f} {x2:.1f},{y2:.1f}")
    return element("path", d="".join(path), class_="wire")


def _label(wire: Wire, x: float, y: float) -> list[Child]:
    name = element("tspan", _short(wire.tensor), class_="tensor")
    title = element("title", f"{wire.tensor}: {wire.type}" if wire.type else wire.tensor)
    parts: list[Child] = [element("text", title, name, x=x, y=y + 15, class_="halo", text_anchor="middle")]
    if wire.type:
        parts.append(words(_type_label(wire), x, y + 29, "halo kind", "middle"))
    return parts


def _draw_box(box: _Box, x: float, y: float) -> Drawn:
    # An end holds one name: it is as low as that allows, and touches its wires.
    height = BOX if box.kind == "step" else END
    top = y + BOX - height if box.ports_out else y
    rounded = height / 2 if box.kind == "end" else 6
    parts: list[Child] = [
        element(
            "rect", x=x - box.width / 2, y=top, width=box.width, height=height, rx=rounded, class_=f"box {box.kind}"
        ),
        words(box.title, x, top + height / 2 - 2, "name", "middle"),
        words(box.subtitle, x, top + height / 2 + 12, "kind", "middle"),
    ]
    if box.kind == "step":
        # The model's own names of what comes in and goes out, which the maps of the ensemble translate.
        parts += [words(_short(n), x + box.offset(n, above=True), y + 12, "port", "middle") for n in box.ports_in]
        parts += [
            words(_short(n), x + box.offset(n, above=False), y + BOX - 5, "port", "middle") for n in box.ports_out
        ]
    return element("g", *parts)


def _in_words(graph: EnsembleGraph) -> str:
    lines = [f"Takes {', '.join(graph.inputs)}."]
    for step in graph.steps:
        read, made = ", ".join(step.input_map.values()), ", ".join(step.output_map.values())
        lines.append(f"{step.model} makes {made} from {read}.")
    return " ".join([*lines, f"Gives {', '.join(graph.outputs)}."])


def _short(text: str) -> str:
    return clipped(text, _LONGEST)


def _type_label(wire: Wire) -> str:
    return clipped(wire.type, _LONGEST)
