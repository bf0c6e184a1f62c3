"""Places for the boxes and wires of an ensemble, top to bottom, so that wires go down and few of them cross.

The method is Sugiyama's: layers by the longest way from the inputs, a dummy wherever a wire passes a layer, an order
within layers by the mean of the neighbours, and places near them. Source: Sugiyama, Tagawa, Toda, IEEE Transactions on
Systems, Man and Cybernetics 11 (1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

GAP: Final = 26.0
_SWEEPS: Final = 8


@dataclass(slots=True)
class Item:
    """A box, or a dummy where a wire passes; ``x`` is its middle, once placed."""

    id: str
    width: float
    layer: int = 0
    x: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """One wire between neighbours; offsets are where it ends, from the middles of its items."""

    above: str
    below: str
    above_offset: float = 0.0
    below_offset: float = 0.0


@dataclass(slots=True)
class Layout:
    """Items by id, and the ids of each layer from left to right."""

    items: dict[str, Item]
    links: Sequence[Link]
    layers: list[list[str]] = field(default_factory=list)

    @property
    def width(self) -> float:
        """From 0, which the leftmost item touches, to the right edge of the rightmost."""
        return max((item.x + item.width / 2 for item in self.items.values()), default=0.0)


def layers_of(edges: Sequence[tuple[str, str]], ids: Sequence[str]) -> dict[str, int]:
    """The longest way from a box that nothing leads to. A circle, which Triton refuses, ends the counting anywhere."""
    layer = dict.fromkeys(ids, 0)
    for _ in ids:
        moved = False
        for above, below in edges:
            if layer[below] < layer[above] + 1 < len(layer):
                layer[below] = layer[above] + 1
                moved = True
        if not moved:
            break
    return layer


def place(items: Sequence[Item], links: Sequence[Link]) -> Layout:
    """Order and place the items of each layer; links join neighbouring layers. The same input gives the same places."""
    layout = Layout({item.id: item for item in items}, links)
    count = max((item.layer for item in items), default=-1) + 1
    layout.layers = [[item.id for item in items if item.layer == index] for index in range(count)]
    up: dict[str, list[Link]] = {item.id: [] for item in items}
    down: dict[str, list[Link]] = {item.id: [] for item in items}
    for link in links:
        up[link.below].append(link)
        down[link.above].append(link)
    for ids in layout.layers:
        _settle(layout, ids, {})
    for sweep in range(_SWEEPS):
        falling = sweep % 2 == 0
        for ids in layout.layers if falling else reversed(layout.layers):
            wanted = {one: _wanted(layout, one, (up if falling else down)[one]) for one in ids}
            if sweep < _SWEEPS - 2:
                ids.sort(key=wanted.__getitem__)
            _settle(layout, ids, wanted)
    left = min((item.x - item.width / 2 for item in items), default=0.0)
    for item in items:
        item.x -= left
    return layout


def _wanted(layout: Layout, one: str, links: Sequence[Link]) -> float:
    """Where an item's wires would be upright on average; where it is, without any."""
    places = [
        layout.items[link.above].x + link.above_offset - link.below_offset
        if link.below == one
        else layout.items[link.below].x + link.below_offset - link.above_offset
        for link in links
    ]
    return sum(places) / len(places) if places else layout.items[one].x


def _settle(layout: Layout, ids: Sequence[str], wanted: Mapping[str, float]) -> None:
    """The places nearest (by squares) to the wanted ones in which nothing overlaps: pool adjacent violators."""
    offsets, total = [], 0.0
    for index, one in enumerate(ids):
        if index:
            total += (layout.items[ids[index - 1]].width + layout.items[one].width) / 2 + GAP
        offsets.append(total)
    pools: list[tuple[float, int]] = []
    for index, one in enumerate(ids):
        mean, size = wanted.get(one, offsets[index] - total / 2) - offsets[index], 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    means = [mean for mean, size in pools for _ in range(size)]
    for one, mean, offset in zip(ids, means, offsets, strict=True):
        layout.items[one].x = mean + offset
