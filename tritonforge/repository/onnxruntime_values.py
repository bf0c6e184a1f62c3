"""The settings of the onnxruntime backend, as ``config.pbtxt`` spells them.

Source: triton-inference-server/onnxruntime_backend, ``README.md`` and ``src/onnxruntime.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.generate import concrete
from tritonforge.errors import SpecError
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import Conversion
from tritonforge.spec.conversion.onnxruntime import CudaAccelerator, OnnxRuntimeSpec, TensorRtAccelerator
from tritonforge.spec.sizes import size_in_bytes

_LEVELS: Final = {"none": 2, "basic": -1, "extended": 1, "all": 0}
_CONV_SEARCH: Final = {"exhaustive": "0", "heuristic": "1", "default": "2"}
_ARENA: Final = {"next_power_of_two": "0", "same_as_requested": "1"}


def onnxruntime_values(conversion: Conversion, artifact: Artifact, serving: Serving) -> dict[str, Any]:
    """``parameters`` and ``optimization``; empty where everything is left to the backend.

    Raises:
        SpecError: a setting does not fit the platform or the model.
    """
    spec = conversion.onnxruntime
    _check_platform(spec, serving)
    values: dict[str, Any] = {}
    parameters = _parameters(spec)
    if parameters:
        values["parameters"] = {name: {"string_value": text} for name, text in parameters.items()}
    optimization: dict[str, Any] = {}
    level = spec.load_level
    if level is None and spec.optimize == "all":
        level = "none"  # the file is what `all` would make of it on this kind of processor
    if level not in (None, "all"):
        optimization["graph"] = {"level": _LEVELS[str(level)]}
    accelerators = _accelerators(spec, artifact, serving)
    if accelerators:
        optimization["execution_accelerators"] = accelerators
    if optimization:
        values["optimization"] = optimization
    return values


def _check_platform(spec: OnnxRuntimeSpec, serving: Serving) -> None:
    gpu = serving.platform.gpus > 0
    wants_gpu = [name for name in ("tensorrt", "cuda") if getattr(spec.accelerators, name) is not None]
    if wants_gpu and not gpu:
        raise SpecError(
            f"the accelerator '{wants_gpu[0]}' needs a GPU, and the platform '{serving.platform.name}' has none",
            place=serving.place("onnxruntime", "accelerators", wants_gpu[0]),
            expected="a platform with `gpu:` or `gpus:`",
            hint="`openvino: true` is the accelerator of CPUs; or leave the model out here with `only:`",
        )
    if spec.shrink_arena is not None and "gpu" in spec.shrink_arena and not gpu:
        raise SpecError(
            f"`shrink_arena` names a GPU, and the platform '{serving.platform.name}' has none",
            place=serving.place("onnxruntime", "shrink_arena"),
            expected="cpu:0",
            found=spec.shrink_arena,
        )
    if spec.accelerators.openvino and gpu:
        raise SpecError(
            f"the accelerator 'openvino' is for instances on the CPU, and the platform '{serving.platform.name}' "
            "serves on a GPU",
            place=serving.place("onnxruntime", "accelerators", "openvino"),
            hint="use it on a platform without `gpus:`",
        )
    if spec.optimize in ("extended", "all") and gpu:
        raise SpecError(
            f"`optimize: {spec.optimize}` makes a file for instances on the CPU, and the platform "
            f"'{serving.platform.name}' serves on a GPU",
            place=serving.place("onnxruntime", "optimize"),
            expected="none or basic",
            hint="ONNX Runtime optimises for the GPU when the model loads",
        )


def _parameters(spec: OnnxRuntimeSpec) -> dict[str, str]:
    said: dict[str, Any] = {
        "intra_op_thread_count": spec.intra_op_threads,
        "inter_op_thread_count": spec.inter_op_threads,
        "execution_mode": None if spec.execution_mode is None else int(spec.execution_mode == "parallel"),
        "enable_mem_arena": spec.memory_arena,
        "enable_mem_pattern": spec.memory_pattern,
        "memory.enable_memory_arena_shrinkage": spec.shrink_arena,
        "session.use_device_allocator_for_initializers": spec.weights_outside_arena,
        **_cuda_parameters(spec.accelerators.cuda),
    }
    return {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in said.items()
        if value is not None
    }


def _cuda_parameters(cuda: CudaAccelerator | None) -> dict[str, Any]:
    """CUDA's four older settings stand in ``parameters``.

    The backend fills them with defaults from there whenever a config has any parameter, over those of the accelerator
    ``cuda``.
    """
    if cuda is None:
        return {}
    return {
        "cudnn_conv_algo_search": None if cuda.conv_search is None else _CONV_SEARCH[cuda.conv_search],
        "gpu_mem_limit": None if cuda.memory is None else size_in_bytes(cuda.memory),
        "arena_extend_strategy": None if cuda.arena is None else _ARENA[cuda.arena],
        "do_copy_in_default_stream": cuda.copy_in_default_stream,
    }


def _accelerators(spec: OnnxRuntimeSpec, artifact: Artifact, serving: Serving) -> dict[str, Any]:
    wanted = spec.accelerators
    found: dict[str, Any] = {}
    on_gpu: list[dict[str, Any]] = []
    if wanted.tensorrt is not None:
        on_gpu.append(_named("tensorrt", _tensorrt(wanted.tensorrt, artifact, serving)))
    if wanted.cuda is not None and wanted.cuda.options:
        on_gpu.append(_named("cuda", wanted.cuda.options))
    if on_gpu:
        found["gpu_execution_accelerator"] = on_gpu
    if wanted.openvino:
        found["cpu_execution_accelerator"] = [{"name": "openvino"}]
    return found


def _named(name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, **({"parameters": dict(parameters)} if parameters else {})}


def _tensorrt(spec: TensorRtAccelerator, artifact: Artifact, serving: Serving) -> dict[str, str]:
    values = dict(spec.options)
    if spec.precision != "fp32":
        values["precision_mode"] = spec.precision.upper()
    if spec.workspace is not None:
        values["max_workspace_size_bytes"] = str(size_in_bytes(spec.workspace))
    if spec.cache is not None:
        values["trt_engine_cache_enable"] = "1"
        values["trt_engine_cache_path"] = spec.cache
    if spec.profile is not None:
        shapes = _auto_profile(artifact, serving) if spec.profile == "auto" else spec.profile.model_dump()
        values.update({f"trt_profile_{kind}_shapes": _profile_text(shapes[kind]) for kind in ("min", "opt", "max")})
    return values


def _auto_profile(artifact: Artifact, serving: Serving) -> dict[str, dict[str, list[int]]]:
    """The smallest and largest shapes that are asked for; tuned for the largest.

    Raises:
        SpecError: a dynamic axis has no bounds.
    """
    signature = artifact.signature
    assert signature is not None
    largest = max(1, serving.max_batch_size or 1)
    found: dict[str, dict[str, list[int]]] = {"min": {}, "opt": {}, "max": {}}
    for tensor in signature.inputs:
        axes = tensor.shape[1:] if signature.batched else tensor.shape
        unknown = [dim for dim in axes if isinstance(dim, str) and dim not in serving.axes]
        if unknown:
            raise SpecError(
                f"`profile: auto` does not know the sizes of the axis '{unknown[0]}' of '{tensor.name}'",
                place=serving.place("onnxruntime", "accelerators", "tensorrt", "profile"),
                hint=f"say them with `golden: {{axes: {{{unknown[0]}: [SMALLEST, LARGEST]}}}}`",
            )
        for kind, index, batch in (("min", 0, 1), ("opt", 1, largest), ("max", 1, largest)):
            sizes = {axis: bounds[index] for axis, bounds in serving.axes.items()}
            found[kind][tensor.name] = list(concrete(tensor, signature.batched, batch, sizes))
    return found


def _profile_text(shapes: Mapping[str, list[int]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
