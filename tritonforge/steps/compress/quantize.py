"""``quantize``: fewer bits a weight, one module a mode."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tritonforge.artifact.artifact import Draft
from tritonforge.errors import InternalError
from tritonforge.steps.step import Job, Needs

_MODES: Final = {"dynamic": "tritonforge.steps.compress.dynamic"}
"""Where each mode is done. A module has ``TOOLS``, ``MEMORY`` (bytes for each byte of the model) and ``quantize``."""


class Mode(Protocol):
    """What the module of a mode has."""

    TOOLS: tuple[str, ...]
    MEMORY: int

    def quantize(self, job: Job) -> Draft:
        """Write the quantised model.

        Raises:
            CheckFailed: there was nothing to quantise, or the result has another signature.
        """


class Quantize:
    """Dispatches to the mode. The configuration is ``QuantizeSpec``'s, with ``mode``.

    Whether too much was lost is ``parity``'s to say; a step that changed nothing fails here.
    """

    name = "quantize"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        mode = _mode(config)
        return Needs(memory=(512 << 20) + mode.MEMORY * input_bytes, tools=mode.TOOLS)

    def run(self, job: Job) -> Draft:
        return _mode(job.config).quantize(job)


def _mode(config: Mapping[str, Any]) -> Mode:
    name = str(config["mode"])
    if name not in _MODES:
        raise InternalError(f"there is no mode '{name}' of quantize")
    module: Any = importlib.import_module(_MODES[name])
    return module  # type: ignore[no-any-return]  # a module is checked against the protocol by its tests
