from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.artifact.datatypes import BY_CONFIG, BY_NAME, BY_ONNX, data_type
from tritonforge.artifact.signature import Signature, Tensor, parse_type
from tritonforge.errors import SpecError

types = st.sampled_from(sorted(BY_NAME))
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
dims = st.integers(1, 2**40) | names
spaces = st.sampled_from(["", " ", "  "])


@given(types, st.lists(dims, max_size=5), spaces)
def test_what_is_written_as_a_type_is_read_as_it_was_meant(datatype: str, shape: list[int | str], space: str) -> None:
    text = f"{space}{datatype}{space}[{space}{f'{space},{space}'.join(map(str, shape))}{space}]{space}"
    assert parse_type(text) == (datatype, tuple(shape))


@given(types, st.lists(dims | st.just(-1), max_size=5))
def test_unnamed_dynamic_axes_get_a_name_of_their_own(datatype: str, shape: list[int | str]) -> None:
    _, found = parse_type(f"{datatype}[{','.join(map(str, shape))}]")
    assert found == tuple(f"?{axis}" if dim == -1 else dim for axis, dim in enumerate(shape))
    tensor = Tensor("x", datatype, found)
    assert tensor.dims(False) == tuple(dim if isinstance(dim, int) else -1 for dim in shape)


@given(st.text(max_size=12))
def test_any_other_text_is_refused_clearly(text: str) -> None:
    try:
        datatype, shape = parse_type(text)
    except SpecError as error:
        assert repr(text)[1:-1] in repr(error.message) or "unknown data type" in error.message
    else:
        assert datatype in BY_NAME
        assert all(isinstance(dim, str) or dim > 0 for dim in shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FP32", "no tensor type"),
        ("FP32[", "no tensor type"),
        ("[3]", "no tensor type"),
        ("FP32[3] x", "no tensor type"),
        ("FP32[0]", "size 0 on axis 0"),
        ("FP32[3,-2]", "size -2 on axis 1"),
        ("FP32[3,,4]", "'' on axis 1"),
        ("FP32[3,]", "'' on axis 1"),
        ("FP32[,]", "'' on axis 0"),
        ("FP32[1.5]", "'1.5' on axis 0"),
        ("FP32[a-b]", "'a-b' on axis 0"),
        ("FP23[1]", "unknown data type 'FP23'"),
    ],
)
def test_what_is_wrong_with_a_type_is_said(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        parse_type(text)


@pytest.mark.parametrize("empty", ["FP32[]", "FP32[ ]"])
def test_no_dims_are_a_scalar(empty: str) -> None:
    assert parse_type(empty) == ("FP32", ())


tensors = st.builds(
    Tensor, names, types, st.lists(dims, max_size=4).map(tuple), optional=st.booleans(), ragged=st.booleans()
)
signatures = st.builds(
    Signature,
    st.lists(tensors, max_size=3).map(tuple),
    st.lists(tensors, max_size=3).map(tuple),
    st.booleans(),
)


@given(signatures)
def test_a_signature_survives_json(signature: Signature) -> None:
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature


def test_dims_leave_the_batch_out_and_the_text_keeps_it() -> None:
    tensor = Tensor("x", "FP32", ("N", "seq", 3))
    assert tensor.dims(True) == (-1, 3)
    assert tensor.dims(False) == (-1, -1, 3)
    assert str(tensor) == "x: FP32[N,seq,3]"


def test_tensors_are_found_by_name() -> None:
    signature = Signature((Tensor("x", "FP32", ()),), (Tensor("y", "FP32", ()),), False)
    assert signature.input("x") is signature.inputs[0]
    assert signature.output("x") is None


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("FP32", "FP32"),
        ("TYPE_FP32", "FP32"),
        ("float32", "FP32"),
        ("BYTES", "BYTES"),
        ("TYPE_STRING", "BYTES"),
        ("STRING", "BYTES"),
        ("TYPE_BYTES", "BYTES"),  # exists nowhere, but everybody writes it
        ("bool", "BOOL"),
    ],
)
def test_a_type_is_known_by_each_of_its_names(word: str, name: str) -> None:
    assert data_type(word).name == name


@pytest.mark.parametrize("word", ["object", "fp32", "FLOAT32", ""])
def test_any_other_word_is_no_type(word: str) -> None:
    with pytest.raises(SpecError, match="unknown data type"):
        data_type(word)


def test_the_table_of_types_agrees_with_onnx_and_triton() -> None:
    import onnx
    from tritonclient.grpc import model_config_pb2

    assert len(BY_NAME) == len(BY_CONFIG) == len(BY_ONNX) == 14
    in_config = set(model_config_pb2.DataType.keys())
    for item in BY_NAME.values():
        assert item.config in in_config
        if item.numpy is not None and item.name != "BYTES":
            assert onnx.helper.tensor_dtype_to_np_dtype(item.onnx).name == item.numpy
            assert onnx.helper.tensor_dtype_to_np_dtype(item.onnx).itemsize == item.bytes
    assert BY_NAME["BF16"].onnx == onnx.TensorProto.BFLOAT16
    assert BY_NAME["BYTES"].onnx == onnx.TensorProto.STRING
