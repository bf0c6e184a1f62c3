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
    "import-torch": "tritonforge.steps.export.import_torch:ImportTorch",
    "import-huggingface": "tritonforge.steps.export.import_huggingface:ImportHuggingFace",
    "import-tensorflow": "tritonforge.steps.export.import_tensorflow:ImportTensorFlow",
    "package-processor": "tritonforge.steps.export.package_processor:PackageProcessor",
    "collect": "tritonforge.steps.export.collect:Collect",
    "torch-to-onnx": "tritonforge.steps.export.torch_to_onnx:TorchToOnnx",
    "tensorflow-to-onnx": "tritonforge.steps.export.tensorflow_to_onnx:TensorFlowToOnnx",
    "stateful": "tritonforge.steps.optimize.stateful:Stateful",
    "simplify": "tritonforge.steps.optimize.simplify:Simplify",
    "optimize-onnx": "tritonforge.steps.optimize.optimize_onnx:OptimizeOnnx",
    "quantize": "tritonforge.steps.compress.quantize:Quantize",
    "torch-to-torchscript": "tritonforge.steps.compile.torch_to_torchscript:TorchToTorchScript",
    "torch-to-aoti": "tritonforge.steps.compile.torch_to_aoti:TorchToAoti",
    "torch-to-compile": "tritonforge.steps.compile.torch_to_compile:TorchToCompile",
    "tensorflow-to-python": "tritonforge.steps.compile.tensorflow_to_python:TensorFlowToPython",
    "onnx-to-openvino": "tritonforge.steps.compile.onnx_to_openvino:OnnxToOpenVino",
    "golden": "tritonforge.steps.verify.golden:Golden",
    "golden-sequences": "tritonforge.steps.verify.golden_sequences:GoldenSequences",
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
