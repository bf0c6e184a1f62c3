"""What a backend's settings are made for, besides the artefact itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tritonforge.errors import Place
from tritonforge.spec.platform import Platform


def _nowhere(*path: str) -> Place:
    return Place()


@dataclass(frozen=True, slots=True)
class Serving:
    """``max_batch_size`` is what the spec states, None where it leaves that to the template.

    ``axes`` are the smallest and largest sizes of dynamic axes by name; ``place`` says where a key of the model is
    written.
    """

    platform: Platform
    max_batch_size: int | None = None
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    place: Callable[..., Place] = _nowhere
