"""Configs that were given: which backend they are for, which versions they serve, and what clients see."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.repository.given import backend_of, served_versions, signature_of, steps_of
from tritonforge.repository.pbtxt import parse

NUMBERS = [12, 1, 3]


def config(text: str) -> Any:
    return parse(text)


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("", [12]),
        ("version_policy { all {} }", [1, 3, 12]),
        ("version_policy { latest {} }", [12]),
        ("version_policy { latest { num_versions: 2 } }", [3, 12]),
        ("version_policy { latest { num_versions: 9 } }", [1, 3, 12]),
        ("version_policy { specific { versions: [3, 1, 4] } }", [1, 3]),
        ("version_policy { specific { versions: 4 } }", []),
    ],
)
def test_the_policy_says_what_is_served(text: str, served: list[int]) -> None:
    assert served_versions(config(text), NUMBERS) == served


@pytest.mark.parametrize(
    ("text", "name", "files", "backend"),
    [
        ('backend: "vllm"', "m", ["model.onnx"], "vllm"),
        ('platform: "onnxruntime_onnx"', "m", [], "onnxruntime"),
        ('platform: "tensorflow_savedmodel"', "m", [], "tensorflow"),
        ('platform: "mine"', "m", [], "mine"),
        ('platform: "pytorch_libtorch" backend: "pytorch"', "m", [], "pytorch"),
        ('platform: "ensemble"', "m", ["model.onnx"], "ensemble"),
        ("", "m", ["model.onnx"], "onnxruntime"),
        ("", "m", ["model.onnx/model.onnx", "model.onnx/data"], "onnxruntime"),
        ("", "m", ["model.savedmodel/saved_model.pb"], "tensorflow"),
        ("", "m", ["model.plan"], "tensorrt"),
        ("", "m", ["model.pt"], "pytorch"),
        ("", "m", ["model.xml", "model.bin"], "openvino"),
        ("", "m", ["words.txt", "model.py"], "python"),
        ('default_model_filename: "net.onnx"', "m", ["net.onnx"], "onnxruntime"),
        ("", "model.identity", ["x"], "identity"),
        ("", "m", ["net.onnx"], None),
    ],
)
def test_the_backend_is_what_triton_makes_of_it(text: str, name: str, files: list[str], backend: str | None) -> None:
    assert backend_of(config(text), name, files) == backend


def test_a_signature_is_known_when_the_config_says_all_of_it() -> None:
    both = 'input { name: "x" data_type: TYPE_FP32 dims: [4, -1] } output { name: "y" data_type: TYPE_STRING dims: 1 }'
    whole = signature_of(config(both + "max_batch_size: 2"))
    assert whole.batched and whole.inputs[0].dims(True) == (4, -1) and whole.outputs[0].datatype == "BYTES"
    assert not signature_of(config(both)).batched
    for partial in (
        "",
        both.split("output")[0],
        both.replace("TYPE_FP32", "TYPE_INVALID"),
        both.replace("dims: 1", ""),
    ):
        assert signature_of(config(partial)).inputs == ()


def test_the_steps_of_an_ensemble() -> None:
    text = (
        'ensemble_scheduling { step { model_name: "a" model_version: -1 } step { model_name: "b" model_version: 3 } }'
    )
    assert steps_of(config(text)) == [("a", -1), ("b", 3)]
