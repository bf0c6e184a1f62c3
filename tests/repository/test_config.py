from __future__ import annotations

from typing import Any

import pytest

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.repository.config import generate
from tritonforge.repository.derive import served_signature
from tritonforge.repository.pbtxt import parse

from .making import CPU, IMAGES, NEWEST, SPEC, TEXT, layer, made, request, signature, tensor


@pytest.mark.parametrize(
    ("text", "batched", "largest", "dims", "reshaped"),
    [
        ("FP32[3,224,224]", True, 8, [3, 224, 224], False),
        ("FP32[3,-1,width]", True, 8, [3, -1, -1], False),
        ("FP32[]", True, 8, [1], True),
        ("FP32[]", True, 0, [-1], False),
        ("FP32[3]", True, 0, [-1, 3], False),
        ("FP32[]", False, None, [1], False),
        ("FP32[7,-1]", False, None, [7, -1], False),
    ],
)
def test_dims_follow_from_the_shape_and_from_batching(
    text: str, batched: bool, largest: int | None, dims: list[int], reshaped: bool
) -> None:
    found = made(
        signature=signature({"X": text}, {"Y": "FP32[1]"}, batched=batched), max_batch_size=largest
    ).message.input[0]
    assert list(found.dims) == dims
    assert found.HasField("reshape") == reshaped
    assert not found.reshape.shape


@pytest.mark.parametrize(
    ("name", "config"), [("BYTES", "TYPE_STRING"), ("BF16", "TYPE_BF16"), ("FP16", "TYPE_FP16"), ("BOOL", "TYPE_BOOL")]
)
def test_types_get_the_names_of_the_config(name: str, config: str) -> None:
    assert f"data_type: {config}\n" in made(signature=signature({"X": f"{name}[2]"}, {"Y": "FP32[1]"})).text


def test_optional_and_ragged_inputs_are_said() -> None:
    inputs = (tensor("A", "FP32[-1]", ragged=True), tensor("B", "FP32[1]", optional=True))
    ragged = Signature(inputs, (tensor("Y", "FP32[1]"),), True)
    first, second = made(signature=ragged).message.input
    assert (first.allow_ragged_batch, first.optional) == (True, False)
    assert (second.allow_ragged_batch, second.optional) == (False, True)
    assert not made(signature=ragged, max_batch_size=0).message.input[0].allow_ragged_batch


@pytest.mark.parametrize(
    ("signature", "said", "in_layer", "expected"),
    [
        (IMAGES, None, None, 16),
        (IMAGES, 5, None, 5),
        (IMAGES, None, 6, 6),
        (IMAGES, 6, 6, 6),
        (IMAGES, 0, None, 0),
        (IMAGES, None, 0, 0),
        (TEXT, None, None, 0),
        (TEXT, 0, None, 0),
    ],
)
def test_the_largest_batch(signature: Signature, said: int | None, in_layer: int | None, expected: int) -> None:
    values = {} if in_layer is None else {"max_batch_size": in_layer}
    config = made(values, signature=signature, max_batch_size=said)
    assert config.message.max_batch_size == expected
    assert config.message.HasField("dynamic_batching") == (expected > 0)


@pytest.mark.parametrize(
    ("platform", "backend", "said", "expected"),
    [
        (CPU, "onnxruntime", None, [("KIND_CPU", 1)]),
        (NEWEST, "onnxruntime", None, [("KIND_GPU", 1)]),
        (NEWEST, "openvino", None, [("KIND_CPU", 1)]),
        (NEWEST, "vllm", None, [("KIND_MODEL", 1)]),
        (CPU, "onnxruntime", [{"count": 2}], [("KIND_CPU", 2)]),
        (NEWEST, "onnxruntime", [{"count": 2}, {"kind": "KIND_CPU"}], [("KIND_GPU", 2), ("KIND_CPU", 1)]),
        (CPU, "onnxruntime", [], [("KIND_CPU", 1)]),
        (CPU, "onnxruntime", [{"kind": "KIND_AUTO"}], [("KIND_AUTO", 1)]),
    ],
)
def test_instances(platform: Any, backend: str, said: Any, expected: list[tuple[str, int]]) -> None:
    values = {} if said is None else {"instance_group": said}
    groups = made(values, platform=platform, backend=backend).message.instance_group
    assert [(group.Kind.Name(group.kind), group.count) for group in groups] == expected


def test_the_text_is_the_message() -> None:
    config = made({"parameters": {"b": "2", "a": 1}})
    assert parse(config.text) == config.message


def test_every_value_says_where_it_came_from() -> None:
    origins = {item.path: item for item in made({"instance_group": [{"count": 2}]}, template="latency").origins}
    assert origins["input[0].dims"].source == "derived from the signature"
    assert origins["max_batch_size"].source == "template latency (templates/config/latency.pbtxt.j2)"
    assert origins["instance_group[0].kind"].source == "platform local"
    said = origins["instance_group[0].count"]
    assert (said.source, said.value) == ("spec", 2)
    assert said.place is not None
    assert (said.place.file, said.place.line) == (SPEC, 12)


def test_a_default_model_filename_is_said_where_it_is_not_the_backends() -> None:
    assert made(model_filename="weights.onnx").message.default_model_filename == "weights.onnx"
    assert made().message.default_model_filename == ""


def test_sequence_controls_and_states_are_no_inputs_of_clients() -> None:
    model = signature(
        {"X": "FP32[4]", "START": "INT32[1]", "ID": "UINT64[1]", "H": "FP32[8]"}, {"Y": "FP32[4]", "H2": "FP32[8]"}
    )
    batching = {
        "control_input": [
            {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]},
            {"name": "ID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]},
        ],
        "state": [{"input_name": "H", "output_name": "H2", "data_type": "TYPE_FP32", "dims": [8]}],
    }
    config = made({"sequence_batching": batching}, signature=model)
    assert [item.name for item in config.message.input] == ["X"]
    assert [item.name for item in config.message.output] == ["Y"]
    assert not config.message.HasField("dynamic_batching")
    shown = made({"sequence_batching": batching, "output": [{"name": "H2"}]}, signature=model)
    assert [item.name for item in shown.message.output] == ["Y", "H2"]


def test_inputs_that_triton_computes_for_ragged_batches_are_no_inputs_of_clients() -> None:
    model = Signature(
        (tensor("X", "FP32[-1]", ragged=True), tensor("INDEX", "FP32[1]")), (tensor("Y", "FP32[1]"),), True
    )
    batch_input = {
        "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "target_name": ["INDEX"],
        "data_type": "TYPE_FP32",
        "source_input": ["X"],
    }
    assert [item.name for item in made({"batch_input": [batch_input]}, signature=model).message.input] == ["X"]


def test_served_signature_is_what_clients_see() -> None:
    values = {"input": [{"name": "IMAGE", "dims": [3, 224, -1]}]}
    config = made(values, max_batch_size=4)
    served = served_signature(config.message, IMAGES)
    assert served.inputs[0] == Tensor("IMAGE", "FP32", ("batch", 3, 224, "?2"))
    assert served.inputs[1] == Tensor("GAIN", "FP32", ("batch", 1))
    assert served.batched
    unbatched = served_signature(made(max_batch_size=0).message, IMAGES)
    assert unbatched.inputs[1] == Tensor("GAIN", "FP32", ("batch",))
    assert not unbatched.batched
    # What clients see, served again by a model that hands it on, is the same.
    again = generate(request(signature=served, max_batch_size=4, reshape_scalars=False))
    assert served_signature(again.message, served) == served


def test_layers_win_in_their_order() -> None:
    layers = (layer({"default_model_filename": "a"}, "defaults"), layer({"default_model_filename": "b"}, "platform"))
    config = generate(request(layers=layers))
    assert config.message.default_model_filename == "b"
    assert [item.source for item in config.origins if item.path == "default_model_filename"] == ["platform"]
