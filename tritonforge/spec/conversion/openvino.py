"""What the openvino backend gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tritonforge.spec.strict import Strict


class OpenVinoSpec(Strict):
    """What the openvino backend gets."""

    compress: Literal["none", "fp16"] = "none"
    """Keep weights in FP16; what is computed stays FP32 on a CPU."""
    shapes: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Fixed sizes for dynamic axes by name (`batch` is the batch axis); all others stay dynamic."""
