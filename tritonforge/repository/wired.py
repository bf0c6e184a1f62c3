"""What comes out of wiring an ensemble: its signature, its steps, and the config values that say them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place
from tritonforge.repository.request import Layer
from tritonforge.repository.schema import Path_

PlaceOf = Callable[[Path_], Place]
"""Where a path within the ensemble's part of the spec is written, such as ``("steps", 0, "model")``."""


@dataclass(frozen=True, slots=True)
class WiredStep:
    """One step: the folder and version that it runs (-1 is the newest), and its maps of tensors."""

    member: str
    folder: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WiredEnsemble:
    """An ensemble that fits together.

    ``unused`` lists member outputs that nothing takes: they are left out of the maps. ``warnings`` says what Triton
    accepts and then does badly.
    """

    name: str
    signature: Signature
    max_batch_size: int
    steps: tuple[WiredStep, ...]
    decoupled: bool
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    place: Place

    def layer(self) -> Layer:
        """The config's ``ensemble_scheduling``, as the first of the layers of its ConfigRequest."""
        steps: list[dict[str, Any]] = [
            {
                "model_name": step.folder,
                "model_version": step.version,
                "input_map": dict(step.inputs),
                "output_map": dict(step.outputs),
            }
            for step in self.steps
        ]
        return Layer("wired from the steps", {"ensemble_scheduling": {"step": steps}}, lambda _: self.place)
