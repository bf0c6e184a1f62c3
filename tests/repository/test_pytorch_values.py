"""The pytorch backend's settings become its parameters; AOTInductor packages only go where they can be served."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import SpecError
from tritonforge.repository.backend_values import backend_values
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import conversions
from tritonforge.spec.models import ModelSpec
from tritonforge.spec.platform import Platform

from .making import CPU, layer, made, signature

AOTI = signature({"INPUT__0": "FP32[-1,4]"}, {"OUTPUT__0": "FP32[-1,3]"}, batched=False)


def values(
    format_: str, backend: str = "pytorch", runner: str | None = None, platform: Platform = CPU, **settings: Any
) -> dict[str, Any]:
    (conversion,) = conversions(ModelSpec.model_validate({"source": "m", "pytorch": settings}))
    artifact = Artifact(format_, {}, metadata={"runner": runner} if runner else {})
    return backend_values(backend, conversion, artifact, Serving(platform))


def test_what_is_not_said_is_left_to_the_backend() -> None:
    assert values("torchscript") == {}
    assert values("aoti") == {}, "the embedded Triton knows a package by the name of its file"
    assert values("aoti", platform=Platform("new", "26.05", False, "x86_64")) == {"platform": "torch_aoti"}
    assert values("python", "python") == values("python", "python", runner="torch-compile") == {}


def test_settings_become_parameters() -> None:
    said = {
        "intra_op_threads": 2,
        "inter_op_threads": 1,
        "inference_mode": False,
        "optimized_execution": False,
        "weight_sharing": True,
        "cache_cleaning": True,
        "jit_profiling": False,
        "jit_executor": False,
    }
    assert values("torchscript", **said)["parameters"] == {
        "INTRA_OP_THREAD_COUNT": "2",
        "INTER_OP_THREAD_COUNT": "1",
        "INFERENCE_MODE": "false",
        "DISABLE_OPTIMIZED_EXECUTION": "true",
        "ENABLE_WEIGHT_SHARING": "true",
        "ENABLE_CACHE_CLEANING": "true",
        "ENABLE_JIT_PROFILING": "false",
        "ENABLE_JIT_EXECUTOR": "false",
    }
    assert values("aoti", **said)["parameters"]["CACHE_CLEANING_ENABLED"] == "true"
    compiled = values("python", "python", runner="torch-compile", compile_cache="/var/cache/m", intra_op_threads=3)
    assert compiled["parameters"] == {"INTRA_OP_THREAD_COUNT": "3", "COMPILE_CACHE": "/var/cache/m"}


def aoti(platform: Platform, **config: Any) -> Any:
    values = {"platform": "torch_aoti", **config}
    return made(
        backend="pytorch", signature=AOTI, platform=platform, layers=(layer(values),), model_filename="model.pt2"
    )


def test_a_package_names_its_platform_and_file() -> None:
    text = aoti(Platform("new", "26.05", False, "x86_64")).text
    assert 'platform: "torch_aoti"' in text and 'backend: "pytorch"' in text
    assert 'default_model_filename: "model.pt2"' in text
    assert aoti(CPU).message.platform == "torch_aoti", "the embedded server's stand-in runs packages"


@pytest.mark.parametrize(
    ("release", "config", "message"),
    [
        ("26.04", {}, "does not know AOTInductor packages"),
        ("24.10", {}, "does not know AOTInductor packages"),
        ("26.07", {"sequence_batching": {"max_sequence_idle_microseconds": 1}}, "no sequences for AOTInductor"),
    ],
)
def test_what_the_backend_cannot_do_with_a_package_is_refused(
    release: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        aoti(Platform("other", release, False, "x86_64"), **config)
    assert message in caught.value.message
