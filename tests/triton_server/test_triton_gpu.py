from __future__ import annotations

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonforge.triton import cpu_override


def parse(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_gpu_groups_move_to_the_cpu_and_nothing_else_changes() -> None:
    config = parse(
        'name: "m" backend: "onnxruntime" max_batch_size: 8 '
        'input { name: "x" data_type: TYPE_FP32 dims: [-1] } output { name: "y" data_type: TYPE_FP32 dims: [1] } '
        "instance_group { count: 2 kind: KIND_GPU gpus: [0, 1] } instance_group { count: 1 kind: KIND_CPU } "
        "dynamic_batching { max_queue_delay_microseconds: 9007199254740993 }"
    )
    before = config.SerializeToString()
    override = cpu_override(config)
    assert override is not None
    back = json_format.ParseDict(override, ModelConfig())
    expected = parse(text_format.MessageToString(config))
    expected.instance_group[0].kind = 2
    del expected.instance_group[0].gpus[:]
    assert back == expected
    assert config.SerializeToString() == before


def test_nothing_to_override_is_none() -> None:
    assert cpu_override(parse('name: "m"')) is None
    assert cpu_override(parse('name: "m" instance_group { kind: KIND_CPU }')) is None
    assert cpu_override(parse('name: "m" instance_group { count: 1 }')) is None


def test_an_automatic_group_that_names_gpus_is_overridden() -> None:
    override = cpu_override(parse('name: "m" instance_group { count: 1 gpus: [0] }'))
    assert override is not None
    assert override["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]


def test_accelerators_of_gpu_instances_are_left_out() -> None:
    override = cpu_override(
        parse(
            'name: "m" instance_group { kind: KIND_GPU } optimization { execution_accelerators '
            '{ gpu_execution_accelerator { name: "tensorrt" } cpu_execution_accelerator { name: "openvino" } } }'
        )
    )
    assert override is not None
    assert override["optimization"]["execution_accelerators"] == {"cpu_execution_accelerator": [{"name": "openvino"}]}
