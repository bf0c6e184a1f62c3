"""What a config is asked to be: the model's facts and the user's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place
from tritonforge.repository.schema import Path_
from tritonforge.spec.platform import Platform

ENSEMBLE: Final = "ensemble"
"""The ``backend`` of a request for an ensemble."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Config values of the user's, as in YAML. ``place`` tells where a path within ``values`` is written."""

    label: str
    values: Mapping[str, Any]
    place: Callable[[Path_], Place]


@dataclass(frozen=True, slots=True)
class ConfigRequest:
    """What a config is made from.

    ``name`` is the folder's name. ``max_batch_size`` is what the user said: None leaves it to the layers, then to the
    template; 0 is no batching (proto3 cannot tell 0 from unset: only this can). Later layers win.
    ``template_folders`` come before the house's. ``reshape_scalars`` is false for ensembles and routers, which see
    tensors as clients send them. ``places`` says where ``template`` and ``max_batch_size`` were written.
    """

    name: str
    backend: str
    signature: Signature
    platform: Platform
    max_batch_size: int | None = None
    template: str = "default"
    layers: tuple[Layer, ...] = ()
    template_folders: tuple[Path, ...] = ()
    model_filename: str | None = None
    reshape_scalars: bool = True
    places: Mapping[str, Place] = field(default_factory=dict)
