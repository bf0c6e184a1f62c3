"""Elements of inline SVG as text. Everything that is not an element is escaped: names and messages are not trusted."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

TEXT_WIDTH: Final = 6.7
"""A generous mean width of one character at the 12 px of labels; nothing here can measure a font."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Finished markup."""

    text: str

    def __html__(self) -> str:
        """What Jinja2 asks for before it escapes."""
        return self.text


Child = Drawn | str | None


def element(tag: str, *children: Child, **attributes: str | float | None) -> Drawn:
    """An element; ``class_`` is ``class``, other underscores are hyphens, None leaves an attribute out."""
    written = [
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    inside = "".join(
        child.text if isinstance(child, Drawn) else escape(child) for child in children if child is not None
    )
    return Drawn(f"<{tag}{''.join(written)}>{inside}</{tag}>")


def picture(ident: str, width: float, height: float, title: str, description: str, *children: Child) -> Drawn:
    """A whole ``<svg>`` that screen readers announce by its title and description; ``ident`` is unique on the page."""
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", description, id=f"{ident}-desc"),
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
    )


def words(text: str, x: float, y: float, class_: str = "label", anchor: str | None = None) -> Drawn:
    """A line of text."""
    return element("text", text, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Drawn:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def marker(shape: int, x: float, y: float, class_: str, tip: str) -> Drawn:
    """A point whose shape tells its series as well as its colour does; ``tip`` shows on hover."""
    title = element("title", tip)
    kind = shape % 4
    if kind == 0:
        return element("circle", title, cx=x, cy=y, r=4, class_=class_)
    if kind == 1:
        return element("rect", title, x=x - 3.5, y=y - 3.5, width=7, height=7, class_=class_)
    corners = [(0, -5), (4.8, 3.6), (-4.8, 3.6)] if kind == 2 else [(0, -5), (5, 0), (0, 5), (-5, 0)]
    points = " ".join(f"{_value(x + dx)},{_value(y + dy)}" for dx, dy in corners)
    return element("polygon", title, points=points, class_=class_)


def clipped(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters."""
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def width_of(text: str) -> float:
    """About how wide a label is, in pixels."""
    return len(text) * TEXT_WIDTH


def _value(value: str | float | None) -> str:
    if isinstance(value, str) or value is None:
        return value or ""
    # Two decimals are finer than a pixel, and equal figures then give equal bytes everywhere.
    return f"{value:.2f}".rstrip("0").rstrip(".")
