from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tritonforge.errors import CheckFailed, UsageError
from tritonforge.sources.look import onnx_skeleton
from tritonforge.sources.look.facts import ModelFacts
from tritonforge.sources.look.onnx import look


def seen(tmp_path: Path, model: onnx.ModelProto, **axes: int) -> ModelFacts:
    return look(making.save(tmp_path / "net.onnx", model), axes)


def one(
    kind: str, inputs: dict[str, Sequence[Any]], weights: dict[str, tuple[int, ...]], outputs: int = 1, **more: Any
) -> onnx.ModelProto:
    """A graph of one node; its outputs have no shape, so that inference has to find them."""
    opset = more.pop("opset", 17)
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(kind, [*inputs, *weights], names, **more)
    given = [making.value(name, shape) for name, shape in inputs.items()]
    constants = [making.constant(name, np.zeros(shape, np.float32)) for name, shape in weights.items()]
    return making.model([node], given, [making.value(name, None) for name in names], constants, opset=opset)


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    found = seen(tmp_path, making.batched_add(), N=3)
    assert [str(tensor) for tensor in (*(found.inputs or ()), *(found.outputs or ()))] == [
        "x: FP32[N,4]",
        "y: FP32[N,4]",
    ]
    assert (found.sizes, found.parameters, found.operators) == ({"N": 3}, 4, {"Add": 1})
    assert found.versions == {"opset": 17, "ir_version": 8, "producer": "tests"}
    assert found.memory is not None
    assert (found.memory.weights, found.memory.activations, found.memory.unsized) == (16, 2 * 3 * 4 * 4, 0)
    assert found.size == (tmp_path / "net.onnx").stat().st_size


def test_a_size_that_is_not_given_is_one(tmp_path: Path) -> None:
    assert seen(tmp_path, making.dynamic_text(), seq=7).sizes == {"batch": 1, "seq": 7}


def test_an_axis_that_is_none_of_the_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic axis 'batc'") as raised:
        seen(tmp_path, making.dynamic_text(), batc=2)
    assert raised.value.hint == "did you mean 'batch'?"


@pytest.mark.parametrize(
    ("model", "flops"),
    [
        (one("MatMul", {"x": ["N", 64]}, {"w": (64, 10)}), 2 * 4 * 64 * 10),
        (one("MatMul", {"a": ["N", 5, 6], "b": ["N", 6, 7]}, {}), 2 * 4 * 5 * 6 * 7),
        (one("Gemm", {"x": ["N", 64]}, {"w": (10, 64), "b": (10,)}, transB=1), 2 * 4 * 64 * 10),
        (one("Gemm", {"x": [64, "N"]}, {"w": (64, 10)}, transA=1), 2 * 4 * 64 * 10),
        (one("Conv", {"x": ["N", 3, 32, 32]}, {"w": (8, 3, 3, 3), "b": (8,)}), 2 * 4 * 8 * 30 * 30 * 3 * 3 * 3),
        (one("Conv", {"x": ["N", 8, 32, 32]}, {"w": (8, 1, 3, 3)}, group=8, pads=[1] * 4), 2 * 4 * 8 * 32 * 32 * 3 * 3),
        (one("ConvTranspose", {"x": ["N", 3, 8, 8]}, {"w": (3, 5, 2, 2)}, strides=[2, 2]), 2 * 4 * 3 * 64 * 5 * 2 * 2),
        (one("LSTM", {"x": [7, "N", 3]}, {"w": (1, 20, 3), "r": (1, 20, 5)}, hidden_size=5), 2 * 7 * 4 * 20 * (3 + 5)),
        (one("GRU", {"x": [7, "N", 3]}, {"w": (2, 15, 3), "r": (2, 15, 5)}, hidden_size=5, direction="bidirectional"),
         2 * 7 * 4 * 2 * 15 * (3 + 5)),
        (one("Einsum", {"a": ["N", 5, 6], "b": ["N", 6, 7]}, {}, equation="bij,bjk->bik"), 2 * 4 * 5 * 6 * 7),
        (one("Attention", {"q": ["N", 2, 5, 8], "k": ["N", 2, 9, 8], "v": ["N", 2, 9, 6]}, {}, opset=23),
         2 * 4 * 2 * 5 * 9 * (8 + 6)),
        (one("Relu", {"x": ["N", 64]}, {}), 0),
    ],
    ids=lambda value: value.graph.node[0].op_type if isinstance(value, onnx.ModelProto) else "",
)  # fmt: skip
def test_work_is_what_one_counts_by_hand(tmp_path: Path, model: onnx.ModelProto, flops: int) -> None:
    found = seen(tmp_path, model, N=4).flops
    assert found is not None
    assert (found.total, dict(found.unknown)) == (flops, {})


def test_shapes_that_are_computed_in_the_graph_are_followed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = [
        making.constant("zero", np.int64([0])),
        making.constant("rest", np.int64([12])),
        making.constant("w", np.zeros((12, 5), np.float32)),
    ]
    model = making.model(nodes, [making.value("x", ["N", 3, 4])], [making.value("y", None)], weights)
    found = seen(tmp_path, model, N=2)
    assert found.flops is not None
    assert found.flops.total == 2 * 2 * 12 * 5
    assert found.parameters == 60


def test_bounds_that_are_computed_are_followed_where_onnx_stops(tmp_path: Path) -> None:
    # As in every exported BERT: the first S of 512 positions are added to S embeddings.
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["length"]),
        helper.make_node("Slice", ["positions", "zero", "length", "one"], ["ids"]),
        helper.make_node("Add", ["x", "ids"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["y"]),
    ]
    weights = [
        making.constant("zero", np.int64([0])),
        making.constant("one", np.int64([1])),
        making.constant("positions", np.zeros((1, 512), np.float32)),
        making.constant("w", np.zeros((9, 5), np.float32)),
    ]
    model = making.model(nodes, [making.value("x", ["N", "S"])], [making.value("y", None)], weights)
    found = seen(tmp_path, model, N=2, S=9)
    assert found.flops is not None
    assert (found.flops.total, dict(found.flops.unknown)) == (2 * 2 * 9 * 5, {})
    assert found.memory is not None
    assert found.memory.unsized == 0


def test_the_peak_is_what_is_alive_at_once(tmp_path: Path) -> None:
    # x (40 B) → a (400 B) → b (400 B) → y (40 B): a and b live together, x is gone by then.
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["y"]),
    ]
    up, down = np.zeros((10, 100), np.float32), np.zeros((100, 10), np.float32)
    weights = [making.constant("up", up), making.constant("down", down)]
    found = seen(tmp_path, making.model(nodes, [making.value("x", [1, 10])], [making.value("y", [1, 10])], weights))
    assert found.memory is not None
    assert (found.memory.weights, found.memory.activations) == (8000, 800)


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return helper.make_function("mine", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def call(name: str) -> onnx.NodeProto:
    return helper.make_node(name, ["a"], ["b"], domain="mine")


def with_functions(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    model = one("Relu", {"x": [2, 3]}, {})
    model.graph.node[0].op_type, model.graph.node[0].domain = "F0", "mine"
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def test_functions_are_counted_and_their_work_is_told(tmp_path: Path) -> None:
    body = [helper.make_node("Transpose", ["a"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["a", "t"], ["b"])]
    found = seen(tmp_path, with_functions([function("F0", body)]))
    assert (found.functions, found.operators, found.custom) == ({"mine::F0": 2}, {"mine::F0": 1}, ())
    assert found.flops is not None
    assert found.flops.total == 2 * 2 * 2 * 3


def test_functions_that_never_end_are_not_followed(tmp_path: Path) -> None:
    circle = with_functions([function("F0", [call("F1")]), function("F1", [call("F0")])])
    assert any("calls itself" in note for note in seen(tmp_path, circle).notes)
    laughs = [function(f"F{index}", [call(f"F{index + 1}")] * 10) for index in range(9)]
    laughs.append(function("F9", [helper.make_node("Relu", ["a"], ["b"])]))
    found = seen(tmp_path, with_functions(laughs))
    assert found.flops is None
    assert any("when inlined" in note for note in found.notes)


def test_branches_and_rounds(tmp_path: Path) -> None:
    def branch(name: str, width: int) -> onnx.GraphProto:
        weight = making.constant(f"w_{name}", np.zeros((4, width), np.float32))
        node = helper.make_node("MatMul", ["x", weight.name], [name])
        return helper.make_graph([node], name, [], [making.value(name, None)], [weight])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("small", 2), else_branch=branch("large", 50))
    model = making.model(
        [node], [making.value("x", [3, 4]), making.value("c", [], TensorProto.BOOL)], [making.value("y", None)]
    )
    found = seen(tmp_path, model)
    assert found.flops is not None
    assert found.flops.total == 2 * 3 * 4 * 50
    assert found.operators == {"MatMul": 2, "If": 1}
    assert found.parameters == 4 * 52
    assert any("costlier branch" in note for note in found.notes)


def test_operators_that_nothing_can_run_are_named(tmp_path: Path) -> None:
    model = one("Relu", {"x": [2]}, {})
    nodes = model.graph.node
    nodes.append(helper.make_node("Fancy", ["x"], ["a"], domain="my.ops"))
    nodes.append(helper.make_node("Gelu", ["x"], ["b"], domain="com.microsoft"))
    nodes.append(helper.make_node("NoSuchOperator", ["x"], ["c"]))
    assert seen(tmp_path, model).custom == ("NoSuchOperator", "my.ops::Fancy")


def external(tmp_path: Path, **said: str) -> Path:
    model = one("MatMul", {"x": [1, 4]}, {"w": (4, 2)})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    return making.save(tmp_path / "net.onnx", model)


def test_external_data_is_told_and_checked(tmp_path: Path) -> None:
    path = external(tmp_path, location="w.bin", offset="8", length="32")
    assert look(path, {}).problems == ("the external data file w.bin is missing (40 bytes are expected)",)
    (tmp_path / "w.bin").write_bytes(bytes(39))
    assert look(path, {}).problems == ("the external data file w.bin has 39 bytes, and tensors up to byte 40",)
    (tmp_path / "w.bin").write_bytes(bytes(40))
    found = look(tmp_path, {})
    assert (found.problems, found.files["w.bin"], found.parameters) == ((), 40, 8)


@pytest.mark.parametrize(
    "said", [{"location": "../w.bin"}, {"location": "/etc/passwd"}, {}, {"location": "w", "offset": "x"}]
)
def test_external_data_stays_in_its_folder(tmp_path: Path, said: dict[str, str]) -> None:
    with pytest.raises(CheckFailed, match="external data"):
        look(external(tmp_path, **said), {})


def test_large_weights_are_left_out_and_all_else_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = one("MatMul", {"x": ["N", 4000]}, {"w": (4000, 300)})
    model.graph.initializer.append(making.constant("small", np.int64([1, 2, 3])))
    model.graph.node.append(
        helper.make_node("Constant", [], ["c"], value=making.constant("inner", np.ones((50, 50), np.float32)))
    )
    path = making.save(tmp_path / "net.onnx", model)
    monkeypatch.setattr(onnx_skeleton, "WHOLE_LIMIT", 0)
    data = onnx_skeleton.skeleton(path)
    assert len(data) < 2000
    bare = onnx.ModelProto.FromString(data)
    for tensor in (model.graph.initializer[0], model.graph.node[1].attribute[0].t):
        tensor.ClearField("raw_data")
    assert bare == model
    assert look(path, {}).parameters == 4000 * 300 + 50 * 50


@given(cut=st.integers(0, 10_000), at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damaged_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, at: int, byte: int
) -> None:
    data = bytearray(one("Conv", {"x": ["N", 3, 8, 8]}, {"w": (8, 3, 3, 3)}).SerializeToString())
    data[at % len(data)] = byte
    path = tmp_path_factory.mktemp("damaged") / "net.onnx"
    path.write_bytes(data[: len(data) - cut % 60])
    with pytest.MonkeyPatch.context() as patch:
        for limit in (0, 2**20):
            patch.setattr(onnx_skeleton, "WHOLE_LIMIT", limit)
            try:
                look(path, {})
            except CheckFailed as error:
                assert error.place is not None


@pytest.mark.parametrize("data", [b"", b"\x08", b"no model at all " * 9, b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match=r"is empty|truncated or not ONNX"):
        look(path, {})


def test_a_sparse_gigabyte_inside_the_file_is_not_read(tmp_path: Path) -> None:
    model = one("MatMul", {"x": ["N", 4]}, {"w": (4, 2)})
    tensor = model.graph.initializer[0]
    path = tmp_path / "net.onnx"
    # The weight's bytes are a hole: 16384 x 16384 floats, which protobuf itself could still hold.
    size = 4 * 16384 * 16384
    tensor.dims[:] = [16384, 16384]
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16384
    tensor.ClearField("raw_data")
    head = _varint(9 << 3 | 2) + _varint(size)
    body = tensor.SerializeToString()
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    weight = _varint(5 << 3 | 2) + _varint(len(body) + len(head) + size) + body + head
    whole = _varint(7 << 3 | 2) + _varint(len(graph) + len(weight) + size) + graph + weight
    with path.open("wb") as stream:
        stream.write(model.SerializeToString() + whole)
        stream.truncate(stream.tell() + size)
    before = os.times().user
    found = look(path, {"N": 2})
    assert found.parameters == 16384**2
    assert found.flops is not None
    assert found.flops.total == 2 * 2 * 16384**2
    assert os.times().user - before < 5


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
