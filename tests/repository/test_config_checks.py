"""Each check with a config that it refuses and one next to it that it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.errors import SpecError

from .making import CPU, NEWEST, TEXT, made, signature

SEQUENCE = signature(
    {"X": "FP32[4]", "START": "INT32[1]", "ID": "UINT64[1]", "H": "FP32[8]"}, {"Y": "FP32[4]", "H2": "FP32[8]"}
)
START = {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}
ID = {"name": "ID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]}
STATE = {"input_name": "H", "output_name": "H2", "data_type": "TYPE_FP32", "dims": [8]}
ENTRY = {"data_type": "TYPE_FP32", "dims": [3, 8, 8], "zero_data": True}
GAIN = {"data_type": "TYPE_FP32", "dims": [1], "random_data": True}


def warmup(**changes: Any) -> dict[str, Any]:
    sample = {"name": "w", "batch_size": 1, "inputs": {"IMAGE": ENTRY, "GAIN": GAIN}, **changes}
    return {"model_warmup": [sample]}


def sequence(**values: Any) -> dict[str, Any]:
    return {"sequence_batching": {"control_input": [START, ID], "state": [STATE], **values}}


def control(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "control": [values]}


GPU = {"platform": NEWEST}
SEQ = {"signature": SEQUENCE}
TRT = {"backend": "tensorrt", "platform": NEWEST}
IMAGE = {"name": "IMAGE"}

# what it is about, refused values, settings of the refused, allowed values, settings of the allowed
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("does not know `model_metrics`", {"model_metrics": {}}, {}, {"model_metrics": {}}, GPU),
    ("does not know `input.is_non", {"input": [{**IMAGE, "is_non_linear_format_io": True}]}, {"backend": "tensorrt", "platform": CPU.__class__("old", "24.07", False, "x86_64")}, {"input": [{**IMAGE, "is_non_linear_format_io": True}]}, TRT),
    ("changes the backend", {"backend": "pytorch"}, {}, {"backend": "onnxruntime"}, {}),
    ("`platform` of an ensemble", {"platform": "ensemble"}, {}, {"platform": "onnxruntime_onnx"}, {}),
    ("`name` is the name of its folder", {"name": "other"}, {}, {"name": "m"}, {}),
    ("said twice", {"max_batch_size": 4}, {"max_batch_size": 8}, {"max_batch_size": 8}, {"max_batch_size": 8}),
    ("does not batch", {"max_batch_size": 4}, {"signature": TEXT}, {"max_batch_size": 0}, {"signature": TEXT}),
    ("is negative", {"max_batch_size": -1}, {}, {"max_batch_size": 0}, {}),
    ("no input 'IMGE'", {"input": [{"name": "IMGE"}]}, {}, {"input": [IMAGE]}, {}),
    ("no output 'SCORE'", {"output": [{"name": "SCORE"}]}, {}, {"output": [{"name": "SCORES", "label_filename": "l.txt"}]}, {}),
    ("type of 'IMAGE' is not", {"input": [{**IMAGE, "data_type": "TYPE_FP16"}]}, {}, {"input": [{**IMAGE, "data_type": "TYPE_FP32"}]}, {}),
    ("shape of 'IMAGE' is not", {"input": [{**IMAGE, "dims": [1, 8, 8]}]}, {}, {"input": [{**IMAGE, "dims": [3, 8, -1]}]}, {}),
    ("shape of 'IMAGE' is not", {"input": [{**IMAGE, "dims": [3, 8]}]}, {}, {"input": [{**IMAGE, "dims": [24, 8], "reshape": {"shape": [3, 8, 8]}}]}, {}),
    ("shape of 'SCORES' is not", {"output": [{"name": "SCORES", "dims": [-1]}]}, {}, {"output": [{"name": "SCORES", "dims": [2, 5], "reshape": {"shape": [10]}}]}, {}),
    ("shape of 'GAIN' is not", {"input": [{"name": "GAIN", "reshape": None}]}, {}, {"input": [{"name": "GAIN", "reshape": {"shape": []}}]}, {}),
    ("a dim is out of range", {"input": [{**IMAGE, "dims": [3, 0, 8]}]}, {}, {"input": [{**IMAGE, "dims": [3, 1, 8]}]}, {}),
    ("changes how many values", {"input": [{**IMAGE, "dims": [25, 8], "reshape": {"shape": [3, 8, 8]}}]}, {}, {"input": [{**IMAGE, "dims": [192], "reshape": {"shape": [3, 8, 8]}}]}, {}),
    ("reshaped to a scalar", {"input": [{"name": "TEXT", "reshape": {"shape": []}}]}, {"signature": TEXT}, {"input": [{"name": "TEXT"}]}, {"signature": TEXT}),
    ("an image format is for three", {"input": [{"name": "GAIN", "format": "FORMAT_NCHW"}]}, {}, {"input": [{**IMAGE, "format": "FORMAT_NCHW"}]}, {}),
    ("only TensorRT has shape tensors", {"input": [{**IMAGE, "is_shape_tensor": True}]}, {}, {"input": [{**IMAGE, "is_shape_tensor": True}]}, TRT),
    ("only TensorRT has non-linear", {"input": [{**IMAGE, "is_non_linear_format_io": True}]}, {}, {"input": [{**IMAGE, "is_non_linear_format_io": True}]}, TRT),
    ("non-linear format is for three", {"input": [{"name": "GAIN", "is_non_linear_format_io": True}]}, TRT, {"input": [{**IMAGE, "is_non_linear_format_io": True}]}, TRT),
    ("computed from one input", {"batch_input": [{"target_name": ["GAIN"], "data_type": "TYPE_FP32"}]}, {}, {"batch_input": [{"target_name": ["GAIN"], "data_type": "TYPE_FP32", "source_input": ["IMAGE"]}]}, {}),
    ("batch input has no such type", {"batch_input": [{"target_name": ["GAIN"], "data_type": "TYPE_FP64", "source_input": ["IMAGE"]}]}, {}, {"batch_input": [{"target_name": ["GAIN"], "data_type": "TYPE_INT32", "source_input": ["IMAGE"]}]}, {}),
    ("there is no input 'IMG'", {"batch_input": [{"target_name": ["GAIN"], "data_type": "TYPE_FP32", "source_input": ["IMG"]}]}, {}, {}, {}),
    ("no input 'GAINS'", {"batch_input": [{"target_name": ["GAINS"], "data_type": "TYPE_FP32", "source_input": ["IMAGE"]}]}, {}, {}, {}),
    ("no output 'SCORE'", {"batch_output": [{"target_name": ["SCORE"], "source_input": ["IMAGE"]}]}, {}, {"batch_output": [{"target_name": ["SCORES"], "source_input": ["IMAGE"]}]}, {}),
    ("'SCORES' stands twice", {"batch_output": [{"target_name": ["SCORES", "SCORES"], "source_input": ["IMAGE"]}]}, {}, {}, {}),
    ("KIND_GPU on platform 'local'", {"instance_group": [{"kind": "KIND_GPU"}]}, {}, {"instance_group": [{"kind": "KIND_GPU"}]}, GPU),
    ("has no GPU 2", {"instance_group": [{"gpus": [0, 2]}]}, GPU, {"instance_group": [{"gpus": [0, 1]}]}, GPU),
    ("has no GPU 0", {"instance_group": [{"kind": "KIND_AUTO", "gpus": [0]}]}, {}, {"instance_group": [{"kind": "KIND_AUTO"}]}, {}),
    ("is on no GPU", {"instance_group": [{"kind": "KIND_CPU", "gpus": [0]}]}, GPU, {"instance_group": [{"kind": "KIND_CPU"}]}, GPU),
    ("has no instances", {"instance_group": [{"count": 0}]}, {}, {"instance_group": [{"count": 1}]}, {}),
    ("only TensorRT has optimization profiles", {"instance_group": [{"profile": ["0"]}]}, GPU, {"instance_group": [{"profile": ["0"]}]}, TRT),
    ("named by its index", {"instance_group": [{"profile": ["first"]}]}, TRT, {"instance_group": [{"profile": ["1"]}]}, TRT),
    ("preferred batch size is out", {"dynamic_batching": {"preferred_batch_size": [17]}}, {}, {"dynamic_batching": {"preferred_batch_size": [16]}}, {}),
    ("preferred batch size is out", {"dynamic_batching": {"preferred_batch_size": [0]}}, {}, {"dynamic_batching": {"preferred_batch_size": [1]}}, {}),
    ("nothing to batch", {"dynamic_batching": {}}, {"max_batch_size": 0}, {"dynamic_batching": {"default_queue_policy": {"max_queue_size": 9}}}, {"max_batch_size": 0}),
    ("nothing to batch", {"dynamic_batching": {"max_queue_delay_microseconds": 9}}, {"signature": TEXT}, {"dynamic_batching": None}, {"signature": TEXT}),
    ("`default_priority_level` is out", {"dynamic_batching": {"priority_levels": 2}}, {}, {"dynamic_batching": {"priority_levels": 2, "default_priority_level": 2}}, {}),
    ("`default_priority_level` is out", {"dynamic_batching": {"priority_levels": 2, "default_priority_level": 3}}, {}, {}, {}),
    ("needs priorities", {"dynamic_batching": {"default_priority_level": 1}}, {}, {}, {}),
    ("needs priorities", {"dynamic_batching": {"priority_queue_policy": {1: {}}}}, {}, {}, {}),
    ("priority that does not exist", {"dynamic_batching": {"priority_levels": 2, "default_priority_level": 1, "priority_queue_policy": {3: {}}}}, {}, {"dynamic_batching": {"priority_levels": 2, "default_priority_level": 1, "priority_queue_policy": {2: {}}}}, {}),
    ("`preserve_ordering` and several", {"dynamic_batching": {"preserve_ordering": True, "priority_levels": 2, "default_priority_level": 1}}, {}, {"dynamic_batching": {"preserve_ordering": True, "priority_levels": 1, "default_priority_level": 1}}, {}),
    ("delaying of requests", {"dynamic_batching": {"preserve_ordering": True, "default_queue_policy": {"timeout_action": "DELAY", "default_timeout_microseconds": 9}}}, {}, {"dynamic_batching": {"preserve_ordering": True, "default_queue_policy": {"default_timeout_microseconds": 9}}}, {}),
    ("decoupled models", {"response_cache": {"enable": True}, "model_transaction_policy": {"decoupled": True}}, {}, {"response_cache": {"enable": False}, "model_transaction_policy": {"decoupled": True}}, {}),
    ("caches no responses of models with", {"response_cache": {"enable": True}, **sequence()}, SEQ, sequence(), SEQ),
    ("only an ensemble has", {"ensemble_scheduling": {"step": [{"model_name": "a"}]}}, {}, {}, {}),
    ("names no metric", {"model_metrics": {"metric_control": [{"histogram_options": {"buckets": [1]}}]}}, GPU, {"model_metrics": {"metric_control": [{"metric_identifier": {"family": "f"}, "histogram_options": {"buckets": [1]}}]}}, GPU),
    ("has no buckets", {"model_metrics": {"metric_control": [{"metric_identifier": {"family": "f"}}]}}, GPU, {"model_metrics": {}}, GPU),
    ("no input 'STRT'", sequence(control_input=[control("STRT", kind="CONTROL_SEQUENCE_START", int32_false_true=[0, 1])]), SEQ, sequence(), SEQ),
    ("a control input has no name", sequence(control_input=[{}]), SEQ, sequence(control_input=[START]), SEQ),
    ("is a control input twice", sequence(control_input=[START, {"name": "START"}]), SEQ, sequence(control_input=[ID, START]), SEQ),
    ("given to two inputs", sequence(control_input=[START, control("ID", kind="CONTROL_SEQUENCE_START", int32_false_true=[0, 1])]), SEQ, sequence(), SEQ),
    ("says what false and true are", sequence(control_input=[control("START", kind="CONTROL_SEQUENCE_START")]), SEQ, sequence(), SEQ),
    ("says what false and true are", sequence(control_input=[control("START", kind="CONTROL_SEQUENCE_READY", int32_false_true=[0])]), SEQ, sequence(), SEQ),
    ("says what false and true are", sequence(control_input=[control("START", kind="CONTROL_SEQUENCE_END", int32_false_true=[0, 1], fp32_false_true=[0, 1])]), SEQ, sequence(), SEQ),
    ("takes no false and true", sequence(control_input=[control("ID", kind="CONTROL_SEQUENCE_CORRID", int32_false_true=[0, 1])]), SEQ, sequence(), SEQ),
    ("has no such type", sequence(control_input=[control("ID", kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_FP32")]), SEQ, sequence(), SEQ),
    ("control's type is not", sequence(control_input=[control("ID", kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_INT64")]), SEQ, sequence(), SEQ),
    ("control's type is not", sequence(control_input=[control("START", kind="CONTROL_SEQUENCE_START", fp32_false_true=[0, 1])]), SEQ, sequence(), SEQ),
    ("state's type is not", sequence(state=[{**STATE, "data_type": "TYPE_FP16"}]), SEQ, sequence(), SEQ),
    ("state's shape is not", sequence(state=[{**STATE, "dims": [9]}]), SEQ, sequence(state=[{**STATE, "dims": [-1]}]), SEQ),
    ("no output 'H3'", sequence(state=[{**STATE, "output_name": "H3"}]), SEQ, sequence(), SEQ),
    ("an initial state has no name", sequence(state=[{**STATE, "initial_state": [{"zero_data": True}]}]), SEQ, sequence(state=[{**STATE, "initial_state": [{"name": "z", "zero_data": True}]}]), SEQ),
    ("an initial state has no value", sequence(state=[{**STATE, "initial_state": [{"name": "z"}]}]), SEQ, sequence(), SEQ),
    ("preferred batch size is out", sequence(oldest={"preferred_batch_size": [99]}), SEQ, sequence(oldest={"preferred_batch_size": [2]}), SEQ),
    ("`minimum_slot_utilization` is out", sequence(direct={"minimum_slot_utilization": 1.5}), SEQ, sequence(direct={"minimum_slot_utilization": 0.5}), SEQ),
    ("warm-up request is out", warmup(batch_size=0), {}, warmup(), {}),
    ("warm-up request is out", warmup(batch_size=17), {}, warmup(batch_size=16), {}),
    ("no input 'IMG'", warmup(inputs={"IMG": ENTRY, "IMAGE": ENTRY, "GAIN": GAIN}), {}, warmup(), {}),
    ("lacks the input 'GAIN'", warmup(inputs={"IMAGE": ENTRY}), {}, warmup(), {}),
    ("has another type", warmup(inputs={"IMAGE": {**ENTRY, "data_type": "TYPE_FP16"}, "GAIN": GAIN}), {}, warmup(), {}),
    ("does not fit the input", warmup(inputs={"IMAGE": {**ENTRY, "dims": [3, -1, 8]}, "GAIN": GAIN}), {}, warmup(), {}),
    ("does not fit the input", warmup(inputs={"IMAGE": {**ENTRY, "dims": [3, 8]}, "GAIN": GAIN}), {}, warmup(), {}),
    ("is missing", warmup(inputs={"IMAGE": {"data_type": "TYPE_FP32", "dims": [3, 8, 8]}, "GAIN": GAIN}), {}, warmup(), {}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "bad", "bad_settings", "good", "good_settings"), CASES)
def test_checks(
    message: str, bad: dict[str, Any], bad_settings: dict[str, Any], good: dict[str, Any], good_settings: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        made(bad, **bad_settings)
    assert caught.value.place is not None
    assert caught.value.place.line == 12, "an error is at the line that says the value"
    made(good, **good_settings)


def test_a_field_that_is_too_new_names_its_release_its_source_and_the_way_out() -> None:
    with pytest.raises(SpecError) as caught:
        made({"model_metrics": {}})
    error = caught.value
    assert "24.10 (server 2.51.0)" in (error.expected or "")
    assert "24.11 and later" in (error.found or "")
    assert "platforms: NAME: config:" in (error.hint or "")


@pytest.mark.parametrize("field", ["instance_group", "optimization", "model_warmup"])
def test_an_ensemble_has_nothing_that_runs(field: str) -> None:
    steps = {"ensemble_scheduling": {"step": [{"model_name": "a"}]}}
    settings = {"backend": "ensemble", "max_batch_size": 4}
    config = made(steps, **settings)
    assert config.message.platform == "ensemble"
    assert (config.message.backend, len(config.message.instance_group)) == ("", 0)
    values = {"instance_group": [{"count": 1}], "optimization": {"eager_batching": True}, **warmup()}[field]
    with pytest.raises(SpecError, match=f"refuses `{field}`"):
        made({**steps, field: values}, **settings)
    with pytest.raises(SpecError, match="has no steps"):
        made({"ensemble_scheduling": {}}, **settings)
