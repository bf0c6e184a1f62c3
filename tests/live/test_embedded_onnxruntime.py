"""The stand-in for the ONNX Runtime backend behaves as the native backend does."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import doubling, onnx_model
from onnx import TensorProto, helper

from tritonforge.errors import CheckFailed
from tritonforge.triton import Client

pytestmark = pytest.mark.live

ONE = "instance_group { count: 1 kind: KIND_CPU }\n"
X = 'input { name: "x" data_type: TYPE_FP32 dims: [3] }\n'
Y = 'output { name: "y" data_type: TYPE_FP32 dims: [3] }\n'


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_infers_over_both_protocols(client: Client, write: Any, protocol: Any) -> None:
    name = f"double_{protocol}"
    write(name, f'backend: "onnxruntime" max_batch_size: 8\n{X}{Y}{ONE}', {"model.onnx": doubling(["n", 3])})
    client.load(name)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(client.infer(name, {"x": x}, protocol=protocol)["y"], x + x)


TYPES = {
    TensorProto.BOOL: ("BOOL", bool),
    TensorProto.UINT8: ("UINT8", np.uint8),
    TensorProto.INT8: ("INT8", np.int8),
    TensorProto.UINT16: ("UINT16", np.uint16),
    TensorProto.INT16: ("INT16", np.int16),
    TensorProto.INT32: ("INT32", np.int32),
    TensorProto.INT64: ("INT64", np.int64),
    TensorProto.UINT32: ("UINT32", np.uint32),
    TensorProto.UINT64: ("UINT64", np.uint64),
    TensorProto.FLOAT16: ("FP16", np.float16),
    TensorProto.FLOAT: ("FP32", np.float32),
    TensorProto.DOUBLE: ("FP64", np.float64),
    TensorProto.STRING: ("STRING", object),
}


def test_every_data_type_goes_through_unchanged(client: Client, write: Any) -> None:
    nodes, inputs, outputs, config = [], {}, {}, 'backend: "onnxruntime"\n' + ONE
    for element, (name, _) in TYPES.items():
        nodes.append(helper.make_node("Identity", [f"x{name}"], [f"y{name}"]))
        inputs[f"x{name}"] = (element, ["n"])
        outputs[f"y{name}"] = (element, ["n"])
        config += f'input {{ name: "x{name}" data_type: TYPE_{name} dims: [-1] }}\n'
        config += f'output {{ name: "y{name}" data_type: TYPE_{name} dims: [-1] }}\n'
    write("types", config, {"model.onnx": onnx_model(nodes, inputs, outputs)})
    client.load("types")
    feeds = {f"x{name}": np.array([1, 0, 1, 1], dtype=dtype) for name, dtype in TYPES.values() if dtype is not object}
    feeds["xSTRING"] = np.array([b"one", "zwölf".encode(), b"", b"x" * 5000], dtype=object)
    for protocol in ("http", "grpc"):
        answer = client.infer("types", feeds, protocol=protocol)
        for name, _ in TYPES.values():
            assert answer[f"y{name}"].tolist() == feeds[f"x{name}"].tolist(), (protocol, name)


def test_only_the_outputs_that_were_asked_for_come_back(client: Client, write: Any) -> None:
    model = onnx_model(
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])],
        {"x": (TensorProto.FLOAT, [2])},
        {"a": (TensorProto.FLOAT, [2]), "b": (TensorProto.FLOAT, [2])},
    )
    write("two", None, {"model.onnx": model})
    client.load("two")
    answer = client.infer("two", {"x": np.array([1, -2], np.float32)}, outputs=["b"])
    assert {name: array.tolist() for name, array in answer.items()} == {"b": [1, 2]}


def test_requests_are_joined_run_once_and_split(client: Client, write: Any) -> None:
    # The model returns each row plus the number of rows that ran together.
    model = onnx_model(
        [
            helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
            helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "one"], ["same"]),
            helper.make_node("Sub", ["same", "same"], ["zero"]),
            helper.make_node("Add", ["zero", "f"], ["rows"]),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["n", 3])},
        {"y": (TensorProto.FLOAT, ["n", 3]), "rows": (TensorProto.FLOAT, ["n", 3])},
        one=np.float32([1]),
    )
    outputs = Y + 'output { name: "rows" data_type: TYPE_FP32 dims: [3] }\n'
    write(
        "joined",
        f'backend: "onnxruntime" max_batch_size: 64\n{X}{outputs}{ONE}'
        "dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [64] }",
        {"model.onnx": model},
    )
    client.load("joined")
    feeds = [np.full((1 + index % 3, 3), index, np.float32) for index in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda x: client.infer("joined", {"x": x}, protocol="grpc"), feeds))
    for x, answer in zip(feeds, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], x)
    assert max(answer["rows"].max() for answer in answers) > 3


def test_a_bad_request_fails_alone(client: Client, write: Any) -> None:
    # Gather fails for an index outside of the table, but only when the model runs.
    model = onnx_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": (TensorProto.INT64, ["n", 1])},
        {"y": (TensorProto.FLOAT, ["n", 1])},
        table=np.arange(10, dtype=np.float32),
    )
    write(
        "gather",
        'backend: "onnxruntime" max_batch_size: 16 input { name: "x" data_type: TYPE_INT64 dims: [1] } '
        'output { name: "y" data_type: TYPE_FP32 dims: [1] } '
        "dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [16] }" + ONE,
        {"model.onnx": model},
    )
    client.load("gather")

    def ask(index: int) -> Any:
        try:
            return client.infer("gather", {"x": np.array([[index]], np.int64)}, protocol="grpc")["y"].tolist()
        except CheckFailed as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [1, 99, 2, 3]))
    assert [answers[0], answers[2], answers[3]] == [[[1.0]], [[2.0]], [[3.0]]]
    assert "99" in answers[1] or "out of" in answers[1]


def scalar_model(shape: list[Any]) -> onnx.ModelProto:
    return onnx_model(
        [helper.make_node("Neg", ["x"], ["y"])], {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, shape)}
    )


def test_a_scalar_of_a_batched_model_is_reshaped(client: Client, write: Any) -> None:
    write("scalar_batched", 'backend: "onnxruntime" max_batch_size: 4', {"model.onnx": scalar_model(["n"])})
    client.load("scalar_batched")
    config = client.model_config("scalar_batched")
    assert list(config.input[0].dims) == [1]
    assert config.input[0].HasField("reshape")
    assert list(config.input[0].reshape.shape) == []
    answer = client.infer("scalar_batched", {"x": np.array([[1], [2]], np.float32)})["y"]
    assert answer.tolist() == [[-1], [-2]]


def test_a_scalar_of_a_model_without_batching_has_dims_1(client: Client, write: Any) -> None:
    write("scalar", 'backend: "onnxruntime"', {"model.onnx": scalar_model([])})
    client.load("scalar")
    assert list(client.model_config("scalar").input[0].dims) == [1]
    assert not client.model_config("scalar").input[0].HasField("reshape")
    assert client.infer("scalar", {"x": np.array([3], np.float32)})["y"].tolist() == [-3]


def test_a_reshape_is_applied_on_both_sides(client: Client, write: Any) -> None:
    write(
        "reshaped",
        'backend: "onnxruntime" max_batch_size: 2\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [6] reshape { shape: [2, 3] } }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [3, 2] reshape { shape: [2, 3] } }',
        {"model.onnx": doubling(["n", 2, 3])},
    )
    client.load("reshaped")
    answer = client.infer("reshaped", {"x": np.arange(6, dtype=np.float32).reshape(1, 6)})["y"]
    assert answer.tolist() == [[[0, 2], [4, 6], [8, 10]]]


@pytest.mark.parametrize(
    ("name", "config", "shape", "batch", "dims", "dynamic"),
    [
        ("none", None, ["n", 3], 4, [3], True),
        ("asked", "max_batch_size: 16", ["n", 3], 16, [3], True),
        ("one", "max_batch_size: 1", ["n", 3], 1, [3], False),
        ("fixed", None, [2, 3], 0, [2, 3], False),
        ("inner", None, [1, "m"], 0, [1, -1], False),
        ("complete", f"{X}{Y}".replace("[3]", "[-1,3]"), ["n", 3], 0, [-1, 3], False),
        ("inputs", X, ["n", 3], 4, [3], True),
    ],
)
def test_completion_follows_the_native_rules(
    client: Client, write: Any, name: str, config: str | None, shape: Any, batch: int, dims: Any, dynamic: bool
) -> None:
    text = None if config is None else f'backend: "onnxruntime" {config}'
    write(f"complete_{name}", text, {"model.onnx": doubling(shape)})
    client.load(f"complete_{name}")
    found = client.model_config(f"complete_{name}")
    assert found.max_batch_size == batch
    assert [list(found.input[0].dims), list(found.output[0].dims)] == [dims, dims]
    assert found.HasField("dynamic_batching") is dynamic
    assert found.backend == "onnxruntime"


def test_a_folder_with_external_data_loads(client: Client, write: Any, repository: Any) -> None:
    weight = np.arange(2048, dtype=np.float32)
    model = onnx_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [2048])},
        {"y": (TensorProto.FLOAT, [2048])},
        w=weight,
    )
    for name, place in (("external", "model.onnx"), ("beside", "")):
        write(name, 'backend: "onnxruntime"', {})
        folder = repository / name / "1" / place
        folder.mkdir(exist_ok=True)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (folder / "weights.bin").stat().st_size >= weight.nbytes
        client.load(name)
        np.testing.assert_array_equal(client.infer(name, {"x": weight})["y"], weight * 2)


def test_another_file_name_is_respected(client: Client, write: Any) -> None:
    write(
        "named",
        'backend: "onnxruntime" default_model_filename: "other.onnx"',
        {"other.onnx": doubling([2])},
    )
    client.load("named")
    assert client.infer("named", {"x": np.array([1, 2], np.float32)})["y"].tolist() == [2, 4]


def test_a_request_may_have_no_elements(client: Client, write: Any) -> None:
    write(
        "empty",
        'backend: "onnxruntime" input [ { name: "x" data_type: TYPE_FP32 dims: [-1,-1,-1] } ] '
        'output { name: "y" data_type: TYPE_FP32 dims: [-1,-1,-1] }',
        {"model.onnx": doubling(["a", "b", "c"])},
    )
    client.load("empty")
    for shape in ((0, 2, 3), (2, 0, 3), (2, 3, 0), (0, 0, 0), (1, 2, 3)):
        for protocol in ("http", "grpc"):
            answer = client.infer("empty", {"x": np.ones(shape, np.float32)}, protocol=protocol)["y"]
            assert (answer.shape, answer.dtype) == (shape, np.float32), (shape, protocol)
            assert (answer == 2).all()


def test_an_optional_initializer_can_be_given_or_left_out(client: Client, write: Any) -> None:
    model = onnx_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, [2]), "w": (TensorProto.FLOAT, [2])},
        {"y": (TensorProto.FLOAT, [2])},
        w=np.float32([10, 20]),
    )
    write(
        "optional",
        'backend: "onnxruntime" input [ { name: "x" data_type: TYPE_FP32 dims: [2] }, '
        '{ name: "w" data_type: TYPE_FP32 dims: [2] optional: true } ] '
        'output { name: "y" data_type: TYPE_FP32 dims: [2] }',
        {"model.onnx": model},
    )
    client.load("optional")
    x = np.float32([1, 2])
    assert client.infer("optional", {"x": x})["y"].tolist() == [11, 22]
    assert client.infer("optional", {"x": x, "w": x})["y"].tolist() == [2, 4]


def test_options_of_the_native_backend_are_taken(client: Client, write: Any) -> None:
    names = {
        "intra_op_thread_count": "1",
        "inter_op_thread_count": "1",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "false",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "session.use_device_allocator_for_initializers": "1",
    }
    parameters = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in names.items())
    parameters = parameters.replace('value { string_value: "cpu:0" }', 'value { string_value: "" }')
    write(
        "options",
        f'backend: "onnxruntime" optimization {{ graph {{ level: 1 }} }}\n{parameters}',
        {"model.onnx": doubling([2])},
    )
    client.load("options")
    assert client.infer("options", {"x": np.float32([1, 2])})["y"].tolist() == [2, 4]


REFUSED = {
    "state": (
        'sequence_batching { state { input_name: "a" output_name: "b" data_type: TYPE_FP32 dims: [1] } }',
        "configuration expects 2 inputs, model provides 1",
    ),
    "batch_input": (
        'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "c" data_type: TYPE_FP32 source_input: "x" }',
        "batch_input",
    ),
    "batch_output": (
        'batch_output { target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }',
        "batch_output",
    ),
    "ragged": (None, "ragged batch"),
    "decoupled": ("model_transaction_policy { decoupled: true }", "decoupled"),
    "tensorrt": (
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }',
        "GPU execution accelerator 'tensorrt'",
    ),
    "openvino": (
        'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }',
        "OpenVINOExecutionProvider",
    ),
    "mode": ('parameters { key: "execution_mode" value { string_value: "7" } }', "execution_mode are 0 or 1"),
    "number": ('parameters { key: "intra_op_thread_count" value { string_value: "x" } }', "no whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_emulated_is_refused_by_name(client: Client, write: Any, case: str) -> None:
    extra, words = REFUSED[case]
    x = X.replace("dims", "allow_ragged_batch: true dims") if extra is None else X
    write(
        f"refused_{case}",
        f'backend: "onnxruntime" max_batch_size: 4\n{x}{Y}{ONE}{extra or ""}',
        {"model.onnx": doubling(["n", 3])},
    )
    with pytest.raises(CheckFailed) as caught:
        client.load(f"refused_{case}")
    assert words in str(caught.value)


MISMATCH = {
    "datatype": (X.replace("FP32", "INT32"), Y, 4, "configuration expects datatype TYPE_INT32 for input 'x'"),
    "rank": (X.replace("[3]", "[3,1]"), Y, 4, "the model expects 2 dimensions"),
    "size": (X.replace("[3]", "[4]"), Y, 4, "the model expects 2 dimensions (shape [-1,3])"),
    "output": (X, Y.replace("[3]", "[-1]"), 4, "tensor 'y'"),
    "name": (X.replace('"x"', '"z"'), Y, 4, "unexpected inference input 'z'"),
    "count": (X + X.replace('"x"', '"z"'), Y, 4, "configuration expects 2 inputs, model provides 1"),
    "unbatched": (X, Y, 0, "the model configuration specifies 1 dimensions"),
}


@pytest.mark.parametrize("case", MISMATCH)
def test_a_configuration_that_differs_from_the_model_is_refused(client: Client, write: Any, case: str) -> None:
    x, y, batch, words = MISMATCH[case]
    write(
        f"mismatch_{case}",
        f'backend: "onnxruntime" max_batch_size: {batch}\n{x}{y}{ONE}',
        {"model.onnx": doubling(["n", 3])},
    )
    with pytest.raises(CheckFailed) as caught:
        client.load(f"mismatch_{case}")
    assert words in str(caught.value)


def test_batching_on_a_fixed_first_axis_is_refused(client: Client, write: Any) -> None:
    write("fixed_batch", 'backend: "onnxruntime" max_batch_size: 4', {"model.onnx": doubling([1, 3])})
    with pytest.raises(CheckFailed, match="does not support batching"):
        client.load("fixed_batch")


def test_a_missing_file_is_named(client: Client, write: Any) -> None:
    write("absent", f'backend: "onnxruntime"\n{X}{Y}', {"other.txt": "x"})
    with pytest.raises(CheckFailed, match=r"unable to find '.*absent/1/model.onnx'"):
        client.load("absent")
