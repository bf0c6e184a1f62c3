"""The spec's settings of the openvino backend become parameters, and a batch that it cannot serve is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from repository.making import CPU, SPEC, signature
from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import Place, SpecError
from tritonforge.repository.backend_values import backend_values
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import conversions
from tritonforge.spec.conversion.openvino import OpenVinoSpec
from tritonforge.spec.models import ModelSpec

IMAGE = signature({"X": "FP32[3,8,8]"}, {"Y": "FP32[10]"})


def values(settings: dict[str, Any], *, batched: bool = False, largest: int | None = None) -> Any:
    model = ModelSpec.model_validate({"source": "net.onnx", "backend": "openvino", "openvino": settings})
    serving = Serving(CPU, largest, {}, lambda *path: Place(SPEC, 3, ".".join(path)))
    artifact = Artifact("openvino", {}, replace(IMAGE, batched=batched))
    return backend_values("openvino", conversions(model)[0], artifact, serving)


def test_nothing_is_said_where_everything_is_left_to_the_backend() -> None:
    assert values({}) == {}
    assert values({"compress": "fp16", "shapes": {"seq": 4}}, largest=0) == {}


def test_parameters_have_tritons_names() -> None:
    settings = {"threads": 2, "streams": "auto", "hint": "throughput", "bf16": True, "extension": "/opt/kernels.so"}
    found = {name: item["string_value"] for name, item in values(settings)["parameters"].items()}
    assert found == {
        "INFERENCE_NUM_THREADS": "2",
        "NUM_STREAMS": "AUTO",
        "PERFORMANCE_HINT": "THROUGHPUT",
        "CPU_EXTENSION_PATH": "/opt/kernels.so",
        "HINT_BF16": "YES",
    }
    assert values({"streams": 3})["parameters"] == {"NUM_STREAMS": {"string_value": "3"}}


def test_padded_batches_say_so_and_keep_the_dynamic_batcher_out() -> None:
    assert values({"batching": "padded"}, batched=True, largest=8) == {
        "parameters": {"ENABLE_BATCH_PADDING": {"string_value": "YES"}},
        "dynamic_batching": None,
    }


def test_a_largest_batch_without_padding_is_refused_at_its_place() -> None:
    with pytest.raises(SpecError, match="fixes the batch to `max_batch_size`") as raised:
        values({}, largest=8)
    assert raised.value.place == Place(SPEC, 3, "max_batch_size")
    assert "batching: padded" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batching": "padded", "shapes": {"batch": 4}}, "contradict each other"),
        ({"extension": "kernels.so"}, "absolute path"),
        ({"streams": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_as_the_spec_is_read(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenVinoSpec.model_validate(settings)


def test_the_ir_depends_on_what_it_is_built_with_alone() -> None:
    assert OpenVinoSpec(threads=3, hint="latency").built() == OpenVinoSpec().built()
    assert OpenVinoSpec(shapes={"seq": 3}).built()["shapes"] == {"seq": 3}
