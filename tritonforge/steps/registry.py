"""The steps by name: the house's and those of installed packages (entry points ``tritonforge.steps``)."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Final

from tritonforge.errors import InternalError
from tritonforge.steps.step import Step

_HOUSE: Final = {
    "import-onnx": "tritonforge.steps.export.import_onnx:ImportOnnx",
    "import-python": "tritonforge.steps.export.import_python:ImportPython",
    "collect": "tritonforge.steps.export.collect:Collect",
    "simplify": "tritonforge.steps.optimize.simplify:Simplify",
    "golden": "tritonforge.steps.verify.golden:Golden",
    "parity": "tritonforge.steps.verify.parity:Parity",
}


@cache
def step(name: str) -> Step:
    """The step called ``name``; only its own module is imported.

    Raises:
        InternalError: there is none.
    """
    target = _HOUSE.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        made: Step = getattr(importlib.import_module(module), attribute)()
        return made
    from importlib.metadata import entry_points

    for point in entry_points(group="tritonforge.steps", name=name):
        found: Step = point.load()()
        return found
    raise InternalError(f"there is no step '{name}'")
