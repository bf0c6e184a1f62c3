"""The data table ``images.yaml``, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import yaml

_PACKAGE: Final = "tritonforge.rollout.jetson"


@dataclass(frozen=True, slots=True)
class Row:
    """One JetPack. ``image`` is None where there is none; ``instead`` says what can be done then."""

    jetpack: str
    l4t: tuple[int, ...]
    image: str | None
    sources: tuple[str, ...]
    first: str | None = None
    last: str | None = None
    default: str | None = None
    runtime: str | None = None
    gpus: bool = False
    limits: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


@cache
def rows() -> tuple[Row, ...]:
    """All of them, the oldest JetPack first."""
    return tuple(_row(data) for data in _document()["rows"])


def row_of(jetpack_major: str | None) -> Row | None:
    """The row of a JetPack's major version."""
    return next((row for row in rows() if row.jetpack == jetpack_major), None)


def jetpack_of_l4t(l4t: str) -> str | None:
    """The JetPack of a Jetson Linux (``36.4.3``): exactly where it is known, else its major version alone."""
    exact = _document()["l4t"].get(l4t)
    if exact is not None:
        return str(exact)
    major = l4t.partition(".")[0]
    return next((row.jetpack for row in rows() if major.isdigit() and int(major) in row.l4t), None)


@cache
def _document() -> dict[str, Any]:
    text = (resources.files(_PACKAGE) / "images.yaml").read_text("utf-8")
    document = yaml.safe_load(text)
    assert isinstance(document, dict)
    return document


def _row(data: Mapping[str, Any]) -> Row:
    many = {"l4t", "sources", "limits", "instead"}
    given: dict[str, Any] = {name: tuple(value) if name in many else value for name, value in data.items()}
    return Row(**given)
