"""What the plots have in common: margins, axes, a legend, and the lines of what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tritonforge.report.figures import number
from tritonforge.report.scale import Scale
from tritonforge.report.svg import Child, Drawn, element, line, marker, picture, width_of, words

_LEGEND_ROW: Final = 20


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure that a gate asks for, and how to call it."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The inside of a plot in pixels; ``rows`` is how many the legend has."""

    rows: int = 1
    width: float = 640.0
    left: float = 60.0
    right: float = 624.0

    @property
    def top(self) -> float:
        return 34.0 + _LEGEND_ROW * (self.rows - 1)

    @property
    def bottom(self) -> float:
        return self.top + 210.0

    @property
    def height(self) -> float:
        return self.bottom + 46.0

    def slot(self, count: int) -> float:
        """The width of each of ``count`` equal parts."""
        return (self.right - self.left) / max(1, count)

    def axes(self, y: Scale, unit: str) -> list[Child]:
        """Horizontal lines at the ticks, their figures, and the unit."""
        parts: list[Child] = []
        for tick in y.ticks:
            at = y(tick)
            parts.append(line(self.left, at, self.right, at, "grid"))
            parts.append(words(number(tick), self.left - 8, at + 4, "tick", "end"))
        middle = (self.top + self.bottom) / 2
        turned = f"rotate(-90 14 {middle:.0f})"
        said = f"{unit}, logarithmic" if y.log else unit
        parts.append(element("text", said, x=14, y=middle, class_="axis", text_anchor="middle", transform=turned))
        return parts

    def numbers_below(self, x: Scale, unit: str) -> list[Child]:
        """Figures at the ticks of a horizontal axis, and its unit."""
        parts: list[Child] = [words(number(tick), x(tick), self.bottom + 18, "tick", "middle") for tick in x.ticks]
        return [*parts, words(unit, (self.left + self.right) / 2, self.bottom + 36, "axis", "middle")]


def legend(frame: Frame, names: Sequence[str], note: str | None = None) -> list[Child]:
    """The markers and names of the series above the plot, and a note after them."""
    parts: list[Child] = []
    x, y = frame.left, 12.0
    for index, name in enumerate(names):
        if index and index % 6 == 0:
            x, y = frame.left, y + _LEGEND_ROW
        parts.append(marker(index, x + 5, y, f"point s{index % 4}", name))
        parts.append(words(name, x + 15, y + 4, "label"))
        x += 15 + width_of(name) + 18
    if note is not None:
        parts.append(words(note, frame.right, y + 4, "axis", "end"))
    return parts


def reference_lines(frame: Frame, bounds: Sequence[Bound], y: Scale) -> list[Child]:
    """Dashed lines at what is asked for; labels are moved apart where lines lie close together."""
    parts: list[Child] = []
    lowest_free = frame.top - 20.0
    for bound in sorted(bounds, key=lambda item: y(item.value)):
        at = y(bound.value)
        label = max(at - 5, lowest_free + 14)
        lowest_free = label
        parts.append(line(frame.left, at, frame.right, at, "bound"))
        parts.append(words(bound.label, frame.right, label, "bound-label", "end"))
    return parts


def empty(ident: str, title: str, why: str = "nothing was measured") -> Drawn:
    """A plot without figures says so."""
    said = words(why, 320, 34, "axis", "middle")
    return picture(ident, 640, 60, title, why, said)
