"""The external data files that an ONNX model names: whether they are there, and long enough.

Source: ONNX ``docs/ExternalData.md``: location (relative to the model), offset and length in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.onnx_types import bytes_of


class External:
    """Collects what tensors say of their files; ``files`` has those that exist with their bytes."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._needed: dict[str, int] = {}
        self.files: dict[str, int] = {}

    def add(self, tensor: Any) -> None:
        """Note where a tensor lies.

        Raises:
            CheckFailed: outside the model's folder.
        """
        location, offset, length = "", 0, None
        for entry in tensor.external_data:
            key, value = entry.key, entry.value
            if key == "location":
                location = value
            elif key in ("offset", "length"):
                if not value.isascii() or not value.isdigit() or len(value) > 19:
                    raise CheckFailed(
                        f"the {key} of external data is no number",
                        place=Place(self._model, field=tensor.name[:200]),
                        found=value[:40],
                    )
                offset, length = (int(value), length) if key == "offset" else (offset, int(value))
        needed = self._needed.get(location)
        if needed is None:
            needed = 0
            if not _is_inside(location):
                raise CheckFailed(
                    "external data is outside the model's folder",
                    place=Place(self._model, field=tensor.name[:200]),
                    found=location[:200] or "no location",
                )
            with suppress(OSError):
                self.files[location] = (self._model.parent / location).stat().st_size
        end = offset + (bytes_of(tensor.data_type, prod(tensor.dims)) if length is None else length)
        self._needed[location] = end if end > needed else needed

    def problems(self) -> Iterator[str]:
        """What is missing."""
        for location, needed in self._needed.items():
            size = self.files.get(location)
            if size is None:
                yield f"the external data file {location} is missing ({needed} bytes are expected)"
            elif size < needed:
                yield f"the external data file {location} has {size} bytes, and tensors up to byte {needed}"


def _is_inside(location: str) -> bool:
    """Whether it stays below the model's folder, whatever folder that is."""
    path = PurePosixPath(location)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in location
