"""What the onnxruntime backend gets."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import Strict


class OnnxRuntimeSpec(Strict):
    """What the onnxruntime backend gets."""

    optimize: Literal["none", "basic", "extended", "all"] = "none"
    """Graph optimisations that are done once, here, instead of at every load. `all` ties the file to this kind of
    processor."""
    format: Literal["onnx", "ort"] = "onnx"
    """`ort` is ONNX Runtime's own format, for small builds of it."""
