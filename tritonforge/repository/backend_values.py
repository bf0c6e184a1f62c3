"""A backend's settings in the spec, in the words of ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.spec.conversion.effective import Conversion

Values = dict[str, Any]


def backend_values(backend: str, conversion: Conversion, artifact: Artifact) -> Values:
    """The config's fields that the settings stand for; empty where they leave everything to the backend."""
    make = _BACKENDS.get(backend)
    return {} if make is None else make(conversion, artifact)


_BACKENDS: Final[Mapping[str, Callable[[Conversion, Artifact], Values]]] = {}
