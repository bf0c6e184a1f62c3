"""What the spec says of the onnxruntime backend is built, proven and served by the embedded Triton."""

from __future__ import annotations

from typing import Any

import making_onnx as making
import pytest
from cli.commands import Workshop

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

SPEC = """
defaults:
  model:
    source: block.onnx
    golden: {axes: {seq: [3, 12]}}
    max_batch_size: 4
models:
  plain: {}
  basic:
    onnxruntime: {optimize: basic}
  all:
    onnxruntime: {optimize: all}
  ort:
    onnxruntime: {optimize: extended, format: ort}
  int8:
    simplify: true
    quantize: {mode: dynamic}
    onnxruntime: {optimize: extended}
  settings:
    onnxruntime:
      intra_op_threads: 1
      inter_op_threads: 2
      execution_mode: parallel
      memory_arena: true
      memory_pattern: false
      shrink_arena: cpu:0
      weights_outside_arena: true
      load_level: extended
"""


@pytest.fixture(scope="module")
def built(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("ort") / "w", runtime.root.parent)
    making.save(made.folder / "block.onnx", making.encoder_block())
    made.write(SPEC)
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def validated(built: Workshop) -> dict[str, dict[str, Any]]:
    return {model["folder"]: model for model in built.json("validate")["models"]}


@pytest.mark.parametrize("name", ["plain", "basic", "all", "ort", "int8", "settings"])
def test_it_loads_and_answers_as_its_source_does(validated: dict[str, dict[str, Any]], name: str) -> None:
    assert validated[name]["ok"] is True
    assert validated[name]["compared"] >= 6


def config(built: Workshop, name: str) -> str:
    return (built.folder / "build" / "local" / "current" / "models" / name / "config.pbtxt").read_text()


def files(built: Workshop, name: str) -> list[str]:
    (version,) = (built.folder / "build" / "local" / "current" / "models" / name).glob("[0-9]*")
    return sorted(path.name for path in version.iterdir())


def test_ort_is_served_under_its_own_name(built: Workshop) -> None:
    assert files(built, "ort") == ["model.ort"]
    assert 'default_model_filename: "model.ort"' in config(built, "ort")
    assert files(built, "plain") == ["model.onnx"]


def test_settings_stand_in_the_config_in_tritons_words(built: Workshop) -> None:
    text = " ".join(config(built, "settings").split())
    for key, value in {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "2",
        "execution_mode": "1",
        "enable_mem_arena": "1",
        "enable_mem_pattern": "0",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "session.use_device_allocator_for_initializers": "1",
    }.items():
        assert f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' in text
    assert "optimization { graph { level: 1 } }" in text
    assert "optimization { graph { level: 2 } }" in " ".join(config(built, "all").split())
    assert "parameters" not in config(built, "plain")


def test_a_gpu_accelerator_is_refused_where_there_is_no_gpu(built: Workshop, runtime: Runtime, tmp_path: Any) -> None:
    made = Workshop.make(tmp_path / "w", runtime.root.parent)
    making.save(made.folder / "block.onnx", making.encoder_block())
    made.write(
        "models:\n  m:\n    source: block.onnx\n    onnxruntime: {accelerators: {tensorrt: {precision: fp16}}}\n"
    )
    done = made.run("build")
    assert done.code == 2
    assert "the accelerator 'tensorrt' needs a GPU, and the platform 'local' has none" in done.err
    assert "forge.yaml:6" in done.err
