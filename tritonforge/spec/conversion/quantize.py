"""How a model is quantised."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import Strict


class QuantizeSpec(Strict):
    """Fewer bits a weight. What was not converted, and what lost too much, are failures."""

    mode: Literal["dynamic"]
    """`dynamic`: INT8 weights, activations scaled at run time, for MatMul and Gemm (ONNX Runtime)."""
    per_channel: bool = True
    """One scale for each output channel of a weight."""
    reduce_range: bool = True
    """Seven bits instead of eight, against overflow on processors without VNNI."""
    exclude: list[str] = []
    """Names of nodes that stay as they are."""
