"""The pytorch backend's settings in the words of ``config.pbtxt``.

Source: triton-inference-server/pytorch_backend, README ("Parameters") and ``ParseParameters`` of ``src/libtorch.cc``
and ``src/pt2/model_state.cc``. What the spec leaves out is left to the backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import Conversion
from tritonforge.spec.conversion.pytorch import PytorchSpec

AOTI_PLATFORM: Final = "torch_aoti"

_SHARED: Final[Mapping[str, str]] = {
    "INTRA_OP_THREAD_COUNT": "intra_op_threads",
    "INTER_OP_THREAD_COUNT": "inter_op_threads",
    "INFERENCE_MODE": "inference_mode",
    "ENABLE_WEIGHT_SHARING": "weight_sharing",
}
_LIBTORCH: Final[Mapping[str, str]] = {
    **_SHARED,
    "ENABLE_CACHE_CLEANING": "cache_cleaning",
    "ENABLE_JIT_PROFILING": "jit_profiling",
    "ENABLE_JIT_EXECUTOR": "jit_executor",
}
# The README says ENABLE_CACHE_CLEANING for packages, too; the code that loads them reads another name.
_AOTI: Final[Mapping[str, str]] = {**_SHARED, "CACHE_CLEANING_ENABLED": "cache_cleaning"}
_PYTHON: Final[Mapping[str, str]] = {
    "INTRA_OP_THREAD_COUNT": "intra_op_threads",
    "INTER_OP_THREAD_COUNT": "inter_op_threads",
    "COMPILE_CACHE": "compile_cache",
}


def pytorch_values(conversion: Conversion, artifact: Artifact, serving: Serving) -> dict[str, Any]:
    """The fields for TorchScript and for AOTInductor packages, which say their ``platform``.

    The core of the embedded 24.10 refuses that platform beside a backend [ran]: its stand-in goes by the file's name.
    """
    settings = conversion.pytorch
    if artifact.format == "aoti":
        named = {} if serving.platform.embedded else {"platform": AOTI_PLATFORM}
        return {**named, **_parameters(settings, _AOTI)}
    values = _parameters(settings, _LIBTORCH)
    if settings.optimized_execution is not None:
        said = {"DISABLE_OPTIMIZED_EXECUTION": _text(not settings.optimized_execution)}
        values = {"parameters": {**values.get("parameters", {}), **said}}
    return values


def python_values(conversion: Conversion, artifact: Artifact, serving: Serving) -> dict[str, Any]:
    """The fields for PyTorch in the Python backend, which our own ``model.py`` reads; none for other Python models."""
    if artifact.metadata.get("runner") != "torch-compile":
        return {}
    return _parameters(conversion.pytorch, _PYTHON)


def _parameters(settings: PytorchSpec, names: Mapping[str, str]) -> dict[str, Any]:
    said = {name: getattr(settings, field) for name, field in names.items()}
    parameters = {name: _text(value) for name, value in said.items() if value is not None}
    return {"parameters": parameters} if parameters else {}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
