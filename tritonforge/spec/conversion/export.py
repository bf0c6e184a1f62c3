"""How a model is brought from its framework to ONNX."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tritonforge.spec.strict import Strict


class ExportSpec(Strict):
    """How a model is exported to ONNX."""

    opset: Annotated[int, Field(ge=7)] | None = None
    """The opset that is wanted; another one in the result is a failure. The exporter's own when absent."""
    exporters: Annotated[list[Literal["dynamo", "torchscript"]], Field(min_length=1)] | None = None
    """PyTorch's exporters in the order in which they are tried; with one there is no second try. `dynamo` when absent,
    and `torchscript` for TorchScript sources."""
