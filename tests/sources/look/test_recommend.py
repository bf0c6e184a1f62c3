from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritonforge.sources.formats import FORMATS
from tritonforge.sources.look.facts import ModelFacts, TensorFacts
from tritonforge.sources.look.recommend import BACKENDS, advise, backends


def of(kind: str, **more: Any) -> ModelFacts:
    return ModelFacts(kind, Path("model"), {}, **more)


def answers(facts: ModelFacts) -> dict[str, str]:
    return {item.name: item.answer for item in backends(facts)}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_an_answer_with_a_reason_for_every_backend_and_machine(kind: str) -> None:
    found = backends(of(kind))
    assert [item.name for item in found] == list(BACKENDS)
    assert all(item.reason and "{" not in item.reason and "nothing is known" not in item.reason for item in found)
    assert any(item.answer != "no" for item in found)
    advice = advise(of(kind), found)
    assert [item.target for item in advice] == [
        "NVIDIA GPU", "Intel CPU", "cross-platform", "Jetson", "Jetson DLA", "mobile",
    ]  # fmt: skip
    possible = {item.name for item in found if item.answer != "no"}
    assert all(item.reason and (item.backend is None or item.backend in possible) for item in advice)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (of("onnx"), {"onnxruntime": "yes", "tensorrt": "convert", "openvino": "convert", "pytorch": "no"}),
        (of("onnx", custom=("my::Op",)), {"onnxruntime": "no", "tensorrt": "no", "openvino": "no"}),
        (of("onnx", operators={"com.microsoft::Gelu": 1}), {"onnxruntime": "yes", "tensorrt": "no"}),
        (of("onnx", inputs=(TensorFacts("t", "BYTES"),)), {"onnxruntime": "yes", "tensorrt": "no"}),
        (of("onnx", outputs=(TensorFacts("s", "sequence"),)), {"onnxruntime": "no", "tensorrt": "no"}),
        (of("onnx", versions={"opset": 6}), {"onnxruntime": "convert"}),
        (of("torchscript"), {"pytorch": "yes", "onnxruntime": "convert"}),
        (of("savedmodel"), {"onnxruntime": "convert", "tensorrt": "convert", "openvino": "convert", "pytorch": "no"}),
        (of("openvino"), {"openvino": "yes", "onnxruntime": "no"}),
        (of("python"), {"python": "yes", "onnxruntime": "no"}),
    ],
)  # fmt: skip
def test_what_a_model_uses_decides(facts: ModelFacts, expected: dict[str, str]) -> None:
    found = answers(facts)
    assert {name: found[name] for name in expected} == expected


def test_a_custom_operator_is_named_in_the_reason() -> None:
    assert "my::Op" in backends(of("onnx", custom=("my::Op",)))[0].reason


def test_dynamic_axes_do_not_go_to_a_dla() -> None:
    facts = of("onnx", inputs=(TensorFacts("x", "FP32", ("N", 3)),))
    advice = {item.target: item for item in advise(facts, backends(facts))}
    assert "fix every axis" in advice["Jetson DLA"].reason
