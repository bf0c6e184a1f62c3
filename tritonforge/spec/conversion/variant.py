"""One way of serving a model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tritonforge.spec.conversion.export import ExportSpec
from tritonforge.spec.conversion.onnxruntime import OnnxRuntimeSpec
from tritonforge.spec.conversion.openvino import OpenVinoSpec
from tritonforge.spec.conversion.pytorch import PytorchSpec
from tritonforge.spec.conversion.quantize import QuantizeSpec
from tritonforge.spec.strict import Name, Strict
from tritonforge.spec.tolerance import Tolerance


class Variant(Strict):
    """One way of serving a model: what it says comes over what the model says."""

    backend: Name | None = None
    """The Triton backend."""
    export: ExportSpec | None = None
    """How it is exported to ONNX."""
    simplify: bool | None = None
    """Simplify the ONNX graph (onnxslim) and compare the result with the source."""
    quantize: QuantizeSpec | None = None
    """Fewer bits a weight."""
    onnxruntime: OnnxRuntimeSpec | None = None
    """For the onnxruntime backend: what it gets."""
    pytorch: PytorchSpec | None = None
    """For the pytorch backend: what it gets."""
    openvino: OpenVinoSpec | None = None
    """For the openvino backend: what it gets."""
    tolerance: Tolerance | None = None
    """How far a converted artefact may be from its source; by precision when absent."""
    config: dict[str, Any] = {}
    """`ModelConfig` fields of this variant alone, over the model's. Not for `versions`, which share one config."""
    max_batch_size: Annotated[int, Field(ge=0)] | None = None
    """Another largest batch. Not for `versions`."""
