"""What the openvino backend gets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tritonforge.spec.strict import Strict


class OpenVinoSpec(Strict):
    """What the openvino backend gets: how the IR is made, and the parameters that Triton's backend knows."""

    compress: Literal["none", "fp16"] = "none"
    """Keep weights in FP16; what is computed stays FP32 on a CPU."""
    shapes: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Fixed sizes for dynamic axes by name (`batch` is the batch axis); all others stay dynamic."""
    bf16: bool = False
    """Ask for BF16 (`HINT_BF16`). OpenVINO takes it by itself where the processor has it, which Triton's backend cannot
    forbid: live answers are held to the tolerance of BF16 unless `tolerance` says another."""
    batching: Literal["none", "padded"] = "none"
    """Triton's openvino backend fixes the batch to `max_batch_size`. `none`: `max_batch_size` is 0, requests have any
    batch size and are not merged. `padded`: every run is filled up to `max_batch_size` (`ENABLE_BATCH_PADDING`)."""
    threads: Annotated[int, Field(ge=0)] | None = None
    """Threads of one inference (`INFERENCE_NUM_THREADS`)."""
    streams: Literal["auto", "numa"] | Annotated[int, Field(ge=0)] | None = None
    """Inferences at a time (`NUM_STREAMS`)."""
    hint: Literal["latency", "throughput", "cumulative_throughput"] | None = None
    """What it is tuned for (`PERFORMANCE_HINT`)."""
    extension: str | None = None
    """A library with kernels of custom layers, by its absolute path on the server (`CPU_EXTENSION_PATH`)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batching == "padded" and "batch" in self.shapes:
            raise ValueError("`batching: padded` and a fixed `batch` in `shapes` contradict each other")
        if self.extension is not None and not self.extension.startswith("/"):
            raise ValueError("`extension` is an absolute path on the server")
        return self

    def built(self) -> dict[str, object]:
        """What the IR depends on; all else is only in the config."""
        return self.model_dump(include={"compress", "shapes", "batching"})
