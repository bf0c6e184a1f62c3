"""A backend's settings in the spec, in the words of ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.repository.onnxruntime_values import onnxruntime_values
from tritonforge.repository.openvino_values import openvino_values
from tritonforge.repository.pytorch_values import python_values, pytorch_values
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import Conversion

Values = dict[str, Any]


def backend_values(backend: str, conversion: Conversion, artifact: Artifact, serving: Serving) -> Values:
    """The config's fields that the settings stand for; empty where they leave everything to the backend.

    Raises:
        SpecError: a setting does not fit the platform or the artefact.
    """
    make = _BACKENDS.get(backend)
    return {} if make is None else make(conversion, artifact, serving)


_BACKENDS: Final[Mapping[str, Callable[[Conversion, Artifact, Serving], Values]]] = {
    "onnxruntime": onnxruntime_values,
    "openvino": openvino_values,
    "pytorch": pytorch_values,
    "python": python_values,
}
