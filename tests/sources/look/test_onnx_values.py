from __future__ import annotations

from typing import Any

import making_onnx as making
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tritonforge.sources.look.onnx_values import LIMIT, decode, encode, evaluate

I = np.int64  # noqa: E741


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Gather", [I([5, 6, 7]), I(1)], {}),
        ("Gather", [I([[5, 6], [7, 8]]), I([-1])], {"axis": 1}),
        ("Unsqueeze", [I([5, 6]), I([0, 2])], {}),
        ("Squeeze", [I([[5]]), I([0])], {}),
        ("Squeeze", [I([[5]])], {}),
        ("Concat", [I([1]), I([2, 3])], {"axis": 0}),
        ("Slice", [I([1, 2, 3, 4]), I([1]), I([9223372036854775807]), I([0]), I([2])], {}),
        ("Slice", [I([1, 2, 3, 4]), I([-1]), I([-9223372036854775807]), I([0]), I([-1])], {}),
        ("Slice", [I([[1, 2], [3, 4]]), I([0]), I([1])], {}),
        ("Reshape", [I([1, 2, 3, 4]), I([2, -1])], {}),
        ("Reshape", [I([[1, 2], [3, 4]]), I([0, 1, 2])], {}),
        ("ConstantOfShape", [I([2, 2])], {}),
        ("ConstantOfShape", [I([2])], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
        ("Expand", [I([[1], [2]]), I([2, 3])], {}),
        ("Range", [I(1), I(9), I(3)], {}),
        ("Cast", [I([1, 0])], {"to": TensorProto.BOOL}),
        ("Div", [I([7, -7]), I([2, 2])], {}),
        ("Div", [np.float32([7]), np.float32([2])], {}),
        ("Add", [I([1]), I([2, 3])], {}),
        ("Mod", [I([-7]), I([3])], {}),
        ("Min", [I([1, 5]), I([3]), I([2, 2])], {}),
        ("Max", [I([1, 5]), I([3])], {}),
        ("Where", [np.array([True, False]), I([1, 2]), I([3, 4])], {}),
        ("Equal", [I([1, 2]), I([1, 3])], {}),
        ("ReduceProd", [I([2, 3, 4])], {"keepdims": 0}),
        ("ReduceSum", [I([[2, 3], [4, 5]]), I([1])], {}),
    ],
)
def test_values_are_those_of_onnxs_reference(kind: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    names = [f"x{index}" for index in range(len(inputs))]
    arrays = [np.asarray(item) for item in inputs]
    node = helper.make_node(kind, names, ["y"], **attributes)
    values = [
        making.value(name, item.shape, helper.np_dtype_to_tensor_dtype(item.dtype))
        for name, item in zip(names, arrays, strict=True)
    ]
    model = making.model([node], values, [making.value("y", None)])
    wanted = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]
    found = evaluate(node, list(arrays))
    assert found is not None
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.asarray(wanted).dtype


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("ConstantOfShape", [I([LIMIT, LIMIT])]),
        ("Expand", [I([1]), I([2**40])]),
        ("Range", [I(0), I(2**60), I(1)]),
        ("Range", [I(0), I(2), I(0)]),
        ("Div", [I([1]), I([0])]),
        ("Gather", [I([1]), I(9)]),
        ("Reshape", [I([1, 2, 3]), I([2, 2])]),
        ("Slice", [I([1])]),
        ("Concat", []),
        ("MatMul", [I([[1]]), I([[1]])]),
    ],
)
def test_what_is_too_large_or_wrong_stays_unknown(kind: str, inputs: list[Any]) -> None:
    node = helper.make_node(kind, ["x"] * len(inputs), ["y"])
    assert evaluate(node, [np.asarray(item) for item in inputs]) is None


def test_tensors_are_read_and_written() -> None:
    for array in (I([[1, 2]]), np.float32(2.5), np.array([True]), np.zeros((0,), np.int32)):
        value = np.asarray(array)
        again = decode(encode(value, TensorProto()))
        assert again is not None
        np.testing.assert_array_equal(again, value)
    assert decode(TensorProto(data_type=TensorProto.INT64, dims=[3], raw_data=b"short")) is None
    assert decode(TensorProto(data_type=TensorProto.INT64, dims=[2**40])) is None
    listed = decode(helper.make_tensor("x", TensorProto.INT64, [2], [5, 6]))
    assert listed is not None
    assert listed.tolist() == [5, 6]
