"""What the onnxruntime backend gets."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tritonforge.errors import SpecError, did_you_mean
from tritonforge.spec.sizes import size_in_bytes
from tritonforge.spec.strict import Strict

Level = Literal["none", "basic", "extended", "all"]
Shapes = dict[str, list[Annotated[int, Field(ge=1)]]]

TENSORRT_OPTIONS: Final = frozenset(
    {
        "trt_max_partition_iterations",
        "trt_min_subgraph_size",
        "int8_calibration_table_name",
        "int8_use_native_calibration_table",
        "trt_dla_enable",
        "trt_dla_core",
        "trt_engine_cache_prefix",
        "trt_dump_subgraphs",
        "trt_force_sequential_engine_build",
        "trt_context_memory_sharing_enable",
        "trt_layer_norm_fp32_fallback",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_force_timing_cache",
        "trt_detailed_build_log",
        "trt_build_heuristics_enable",
        "trt_sparsity_enable",
        "trt_builder_optimization_level",
        "trt_auxiliary_streams",
        "trt_tactic_sources",
        "trt_extra_plugin_lib_paths",
        "trt_cuda_graph_enable",
        "trt_dump_ep_context_model",
        "trt_ep_context_file_path",
        "trt_ep_context_embed_mode",
    }
)
"""What Triton takes besides the settings of their own below (onnxruntime_backend, ``src/onnxruntime.cc``); it refuses
every other key."""


def _bytes(text: str) -> str:
    try:
        size_in_bytes(text)
    except SpecError as error:
        raise ValueError(f"{error.message}; expected {error.expected}") from None
    return text


Size = Annotated[str, AfterValidator(_bytes)]


class TensorRtProfile(Strict):
    """Shapes with the batch axis, by input, for which TensorRT prepares an engine."""

    min: Shapes
    """The smallest."""
    opt: Shapes
    """Those that it is tuned for."""
    max: Shapes
    """The largest."""


class TensorRtAccelerator(Strict):
    """TensorRT inside ONNX Runtime: the engine is built on the server, when the model loads."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """`precision_mode`. A model with Q/DQ nodes brings its own scales: give it no calibration table."""
    workspace: Size | None = None
    """`max_workspace_size_bytes`, such as `1GiB`."""
    cache: str | None = None
    """Folder on the server that keeps engines between loads (`trt_engine_cache_enable`, `trt_engine_cache_path`)."""
    profile: Literal["auto"] | TensorRtProfile | None = None
    """Shapes to prepare for. `auto` takes them from the signature, `max_batch_size` and `golden.axes`."""
    options: dict[str, str] = {}
    """Further options in Triton's own spelling, such as `trt_builder_optimization_level: "3"`."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.options:
            if name not in TENSORRT_OPTIONS:
                raise ValueError(
                    f"Triton's TensorRT accelerator has no option '{name}' to set here"
                    + (f": {hint}" if (hint := did_you_mean(name, TENSORRT_OPTIONS)) else "")
                )
        table = self.options.get("int8_calibration_table_name")
        if table is not None and self.precision != "int8":
            raise ValueError("`int8_calibration_table_name` goes with `precision: int8`")
        return self


class CudaAccelerator(Strict):
    """The CUDA provider of ONNX Runtime, which every instance on a GPU has."""

    conv_search: Literal["exhaustive", "heuristic", "default"] | None = None
    """How convolution algorithms are chosen (`cudnn_conv_algo_search`)."""
    memory: Size | None = None
    """The most GPU memory of one instance (`gpu_mem_limit`)."""
    arena: Literal["next_power_of_two", "same_as_requested"] | None = None
    """How its memory grows (`arena_extend_strategy`)."""
    copy_in_default_stream: bool | None = None
    """Copy in the stream that computes (`do_copy_in_default_stream`)."""
    options: dict[str, str] = {}
    """Further options of ONNX Runtime's CUDA provider, such as `enable_cuda_graph: "1"`."""

    @model_validator(mode="after")
    def _not_twice(self) -> Self:
        own = {"cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"}
        for name in self.options:
            if name in own:
                raise ValueError(f"'{name}' has a key of its own here")
            if re.fullmatch(r"[a-z0-9_]+", name) is None:
                raise ValueError(f"'{name}' is no option of the CUDA provider")
        return self


class Accelerators(Strict):
    """Execution providers besides the CPU's (Triton's `execution_accelerators`)."""

    tensorrt: TensorRtAccelerator | None = None
    """TensorRT, on platforms with a GPU."""
    cuda: CudaAccelerator | None = None
    """Options of CUDA, on platforms with a GPU."""
    openvino: bool = False
    """OpenVINO, for instances on the CPU."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`tensorrt: true` is TensorRT with every default."""
        if not isinstance(value, dict):
            return value
        return {
            name: {} if item is True and name in ("tensorrt", "cuda") else item
            for name, item in value.items()
            if not (item is False and name in ("tensorrt", "cuda"))
        }


class OnnxRuntimeSpec(Strict):
    """What the onnxruntime backend gets: how the file is prepared, and the settings that Triton's backend knows."""

    optimize: Level = "none"
    """Graph optimisations that are done once, here, instead of at every load. `all` ties the file to this kind of
    processor. `extended` and `all` are for instances on the CPU."""
    format: Literal["onnx", "ort"] = "onnx"
    """`ort` is ONNX Runtime's own format, for small builds of it."""
    load_level: Level | None = None
    """Graph optimisations at load (`optimization.graph.level`); everything when absent."""
    intra_op_threads: Annotated[int, Field(ge=0)] | None = None
    """Threads of one operator (`intra_op_thread_count`); 0 is one for each core."""
    inter_op_threads: Annotated[int, Field(ge=0)] | None = None
    """Operators at a time, with `execution_mode: parallel` (`inter_op_thread_count`)."""
    execution_mode: Literal["sequential", "parallel"] | None = None
    """Whether operators that do not wait for each other run at a time (`execution_mode`)."""
    memory_arena: bool | None = None
    """Keep memory for the next request (`enable_mem_arena`)."""
    memory_pattern: bool | None = None
    """Plan memory of equal shapes once (`enable_mem_pattern`)."""
    shrink_arena: Annotated[str, Field(pattern=r"^(cpu|gpu):\d+(;(cpu|gpu):\d+)*$")] | None = None
    """Devices whose memory is given back after every run, such as `cpu:0;gpu:0`
    (`memory.enable_memory_arena_shrinkage`)."""
    weights_outside_arena: bool | None = None
    """Keep weights out of the arena (`session.use_device_allocator_for_initializers`)."""
    accelerators: Accelerators = Accelerators()
    """Execution providers besides the CPU's."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.inter_op_threads is not None and self.execution_mode != "parallel":
            raise ValueError("`inter_op_threads` is ignored without `execution_mode: parallel`")
        if self.shrink_arena is not None and self.memory_arena is False:
            raise ValueError("`shrink_arena` has nothing to shrink with `memory_arena: false`")
        return self
