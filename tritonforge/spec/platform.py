"""A platform with its defaults filled in: what artefacts are built for."""

from __future__ import annotations

import platform as machine
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.spec.models import PlatformSpec

EMBEDDED_RELEASE: Final = "24.10"
"""The container release whose server (2.51.0) tritonforge brings along."""


@dataclass(frozen=True, slots=True)
class Platform:
    """``triton`` is a container release (``YY.MM``); ``gpus`` is 0 where instances run on the CPU."""

    name: str
    triton: str
    embedded: bool
    processor: str
    gpu: str | None = None
    gpus: int = 0
    tensorrt: str | None = None
    jetpack: str | None = None
    image: str | None = None

    @property
    def release(self) -> tuple[int, int]:
        """``triton`` as numbers that compare."""
        year, _, month = self.triton.partition(".")
        return int(year), int(month)

    def to_json(self) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in self.__slots__}
        if self.image is None:
            del said["image"]  # whoever names none keeps the digests of its releases
        return said


def resolve_platform(name: str, spec: PlatformSpec) -> Platform:
    """Fill in what the spec leaves to tritonforge."""
    gpus = spec.gpus if spec.gpus is not None else (1 if spec.gpu is not None else 0)
    return Platform(
        name=name,
        triton=EMBEDDED_RELEASE if spec.triton == "embedded" else spec.triton,
        embedded=spec.triton == "embedded",
        processor=machine.machine() if spec.processor == "native" else spec.processor,
        gpu=spec.gpu,
        gpus=gpus,
        tensorrt=spec.tensorrt,
        jetpack=spec.jetpack,
        image=spec.image,
    )
