"""The spec's settings of the onnxruntime backend become fields of the config, in Triton's spelling."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from repository.making import CPU, NEWEST, SPEC, signature
from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import Place, SpecError
from tritonforge.repository.backend_values import backend_values
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import conversions
from tritonforge.spec.conversion.onnxruntime import OnnxRuntimeSpec
from tritonforge.spec.models import ModelSpec
from tritonforge.spec.platform import Platform

TEXT = signature({"IDS": "INT64[seq]", "MASK": "INT64[seq]"}, {"Y": "FP32[384]"})


def values(settings: dict[str, Any], platform: Platform = CPU, *, largest: int | None = 8, **axes: Any) -> Any:
    model = ModelSpec.model_validate({"source": "net.onnx", "onnxruntime": settings})
    serving = Serving(platform, largest, axes, lambda *path: Place(SPEC, 3, ".".join(path)))
    return backend_values("onnxruntime", conversions(model)[0], Artifact("onnx", {}, TEXT), serving)


def parameters(found: dict[str, Any]) -> dict[str, str]:
    return {name: item["string_value"] for name, item in found["parameters"].items()}


def accelerator(found: dict[str, Any], index: int = 0) -> dict[str, Any]:
    chosen: dict[str, Any] = found["optimization"]["execution_accelerators"]["gpu_execution_accelerator"][index]
    return chosen


def test_nothing_is_said_where_everything_is_left_to_the_backend() -> None:
    assert values({}) == {}
    assert values({"optimize": "extended", "format": "ort"}) == {}
    assert values({"execution_mode": "sequential"}) == {"parameters": {"execution_mode": {"string_value": "0"}}}


@pytest.mark.parametrize(("level", "number"), [("none", 2), ("basic", -1), ("extended", 1)])
def test_levels_at_load_have_tritons_numbers(level: str, number: int) -> None:
    assert values({"load_level": level}) == {"optimization": {"graph": {"level": number}}}


def test_a_file_that_is_optimised_for_this_processor_is_not_optimised_again() -> None:
    assert values({"optimize": "all"}) == {"optimization": {"graph": {"level": 2}}}
    assert values({"optimize": "all", "load_level": "all"}) == {}


def test_threads_and_memory() -> None:
    found = values(
        {"intra_op_threads": 0, "memory_arena": False, "memory_pattern": True, "weights_outside_arena": True}
    )
    assert parameters(found) == {
        "intra_op_thread_count": "0",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "1",
        "session.use_device_allocator_for_initializers": "1",
    }


def test_tensorrt_with_a_profile_from_the_signature() -> None:
    settings = {
        "tensorrt": {
            "precision": "fp16",
            "workspace": "1GiB",
            "cache": "/cache",
            "profile": "auto",
            "options": {"trt_builder_optimization_level": "3"},
        }
    }
    found = values({"accelerators": settings}, NEWEST, seq=(16, 128))
    assert accelerator(found) == {
        "name": "tensorrt",
        "parameters": {
            "trt_builder_optimization_level": "3",
            "precision_mode": "FP16",
            "max_workspace_size_bytes": str(1 << 30),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "/cache",
            "trt_profile_min_shapes": "IDS:1x16,MASK:1x16",
            "trt_profile_opt_shapes": "IDS:8x128,MASK:8x128",
            "trt_profile_max_shapes": "IDS:8x128,MASK:8x128",
        },
    }


def test_tensorrt_with_stated_shapes_and_with_defaults() -> None:
    shapes = {"min": {"IDS": [1, 1]}, "opt": {"IDS": [4, 32]}, "max": {"IDS": [8, 64]}}
    found = values({"accelerators": {"tensorrt": {"profile": shapes}}}, NEWEST)
    assert accelerator(found)["parameters"]["trt_profile_opt_shapes"] == "IDS:4x32"
    assert accelerator(values({"accelerators": {"tensorrt": True}}, NEWEST)) == {"name": "tensorrt"}


def test_cudas_older_settings_are_parameters_and_the_others_the_accelerators() -> None:
    cuda = {"conv_search": "heuristic", "memory": "2GiB", "arena": "same_as_requested", "copy_in_default_stream": False}
    found = values({"accelerators": {"cuda": {**cuda, "options": {"enable_cuda_graph": "1"}}}}, NEWEST)
    assert parameters(found) == {
        "cudnn_conv_algo_search": "1",
        "gpu_mem_limit": str(2 << 30),
        "arena_extend_strategy": "1",
        "do_copy_in_default_stream": "0",
    }
    assert accelerator(found) == {"name": "cuda", "parameters": {"enable_cuda_graph": "1"}}


def test_openvino_is_the_accelerator_of_cpus() -> None:
    found = values({"accelerators": {"openvino": True}})
    assert found["optimization"]["execution_accelerators"] == {"cpu_execution_accelerator": [{"name": "openvino"}]}


@pytest.mark.parametrize(
    ("settings", "platform", "message", "field"),
    [
        ({"accelerators": {"tensorrt": True}}, CPU, "'tensorrt' needs a GPU", "onnxruntime.accelerators.tensorrt"),
        ({"accelerators": {"cuda": {}}}, CPU, "'cuda' needs a GPU", "onnxruntime.accelerators.cuda"),
        ({"accelerators": {"openvino": True}}, NEWEST, "instances on the CPU", "onnxruntime.accelerators.openvino"),
        ({"optimize": "all"}, NEWEST, "a file for instances on the CPU", "onnxruntime.optimize"),
        ({"optimize": "extended"}, NEWEST, "a file for instances on the CPU", "onnxruntime.optimize"),
        ({"shrink_arena": "cpu:0;gpu:0"}, CPU, "names a GPU", "onnxruntime.shrink_arena"),
        (
            {"accelerators": {"tensorrt": {"profile": "auto"}}},
            NEWEST,
            "does not know the sizes of the axis 'seq'",
            "onnxruntime.accelerators.tensorrt.profile",
        ),
    ],
)
def test_what_does_not_fit_the_platform_is_refused_at_its_place(
    settings: dict[str, Any], platform: Platform, message: str, field: str
) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        values(settings, platform)
    assert raised.value.place == Place(SPEC, 3, field)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inter_op_threads": 2}, "ignored without `execution_mode: parallel`"),
        ({"shrink_arena": "cpu:0", "memory_arena": False}, "nothing to shrink"),
        ({"accelerators": {"tensorrt": {"options": {"trt_dla_enabled": "1"}}}}, "did you mean 'trt_dla_enable'"),
        ({"accelerators": {"tensorrt": {"workspace": "much"}}}, "is no size"),
        ({"accelerators": {"cuda": {"options": {"gpu_mem_limit": "1"}}}}, "has a key of its own"),
        ({"accelerators": {"tensorrt": {"options": {"int8_calibration_table_name": "t"}}}}, "goes with"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_as_the_spec_is_read(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        OnnxRuntimeSpec.model_validate(settings)
