"""What the spec says of the openvino backend is built, proven and served by the embedded Triton."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import making_onnx as making
import pytest
from cli.commands import Workshop

from tritonforge.triton.embedded import Runtime

pytest.importorskip("openvino")
pytestmark = [pytest.mark.live, pytest.mark.slow]

SPEC = """
defaults:
  model:
    source: block.onnx
    backend: openvino
    golden: {axes: {seq: [3, 12]}}
models:
  fp32: {}
  fp16:
    openvino: {compress: fp16}
  fixed:
    openvino: {shapes: {seq: 12}}
  one:
    openvino: {shapes: {seq: 12, batch: 3}}
  padded:
    max_batch_size: 4
    openvino: {shapes: {seq: 12}, batching: padded}
  bf16:
    openvino: {bf16: true, threads: 1, streams: 1, hint: latency}
  int8:
    quantize: {mode: dynamic}
"""


@pytest.fixture(scope="module")
def built(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("ov") / "w", runtime.root.parent)
    making.save(made.folder / "block.onnx", making.encoder_block())
    made.write(SPEC)
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def validated(built: Workshop) -> dict[str, dict[str, Any]]:
    return {model["folder"]: model for model in built.json("validate")["models"]}


@pytest.mark.parametrize("name", ["fp32", "fp16", "fixed", "one", "padded", "bf16", "int8"])
def test_it_loads_and_answers_as_its_source_does(validated: dict[str, dict[str, Any]], name: str) -> None:
    assert validated[name]["ok"] is True, validated[name]
    assert validated[name]["compared"] >= 1


def config(built: Workshop, name: str) -> str:
    text = (built.folder / "build" / "local" / "current" / "models" / name / "config.pbtxt").read_text()
    return " ".join(text.split())


def test_the_batch_is_an_axis_unless_it_is_padded(built: Workshop) -> None:
    assert "max_batch_size" not in config(built, "fp32")
    assert "dims: [-1, -1, 64]" in config(built, "fp32")
    padded = config(built, "padded")
    assert "max_batch_size: 4" in padded
    assert 'key: "ENABLE_BATCH_PADDING" value { string_value: "YES" }' in padded
    assert "dynamic_batching" not in padded


def test_settings_stand_in_the_config_in_tritons_words(built: Workshop) -> None:
    for key, value in {
        "INFERENCE_NUM_THREADS": "1",
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "HINT_BF16": "YES",
    }.items():
        assert f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' in config(built, "bf16")


def test_a_largest_batch_that_the_backend_cannot_keep_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    made = Workshop.make(tmp_path / "w", runtime.root.parent)
    making.save(made.folder / "add.onnx", making.batched_add())
    made.write("models:\n  m:\n    source: add.onnx\n    backend: openvino\n    max_batch_size: 8\n")
    done = made.run("build")
    assert done.code == 2
    assert "Triton's openvino backend fixes the batch to `max_batch_size`" in done.err
    assert "forge.yaml:7" in done.err
    assert "batching: padded" in done.err
