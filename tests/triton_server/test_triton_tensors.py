from __future__ import annotations

import numpy as np
import pytest

from tritonforge.errors import UsageError
from tritonforge.triton.tensors import wire_array, wire_type


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (np.zeros(1, np.float32), "FP32"),
        (np.zeros(1, np.float16), "FP16"),
        (np.zeros(1, bool), "BOOL"),
        (np.zeros(1, np.int64), "INT64"),
        (np.zeros(1, np.uint16), "UINT16"),
        (np.array(["a"]), "BYTES"),
        (np.array([b"a"]), "BYTES"),
        (np.array(["a"], dtype=object), "BYTES"),
    ],
)
def test_the_dtype_says_the_wire_type(array: np.ndarray, datatype: str) -> None:
    assert wire_type("x", array, None) == datatype


def test_bfloat16_is_known_by_its_name() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1.5], dtype=ml_dtypes.bfloat16)
    assert wire_type("x", array, None) == "BF16"
    assert wire_array("x", array, "BF16").dtype == np.float32


def test_a_type_that_triton_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="complex64"):
        wire_type("x", np.zeros(1, np.complex64), None)


def test_text_becomes_bytes_in_its_shape() -> None:
    array = wire_array("x", np.array([["a", "é"], ["", "c"]]), "BYTES")
    assert array.tolist() == [[b"a", "é".encode()], [b"", b"c"]]


def test_bytes_that_are_no_text_are_kept() -> None:
    array = wire_array("x", np.array([b"\xff\x00\xfe"], dtype=object), "BYTES")
    assert array.tolist() == [b"\xff\x00\xfe"]


def test_values_are_never_converted_silently() -> None:
    with pytest.raises(UsageError, match="FP32"):
        wire_array("x", np.zeros(1, np.float64), "FP32")
    with pytest.raises(UsageError, match="BYTES"):
        wire_array("x", np.zeros(1), "BYTES")


def test_rank_and_order_are_kept() -> None:
    assert wire_array("x", np.float32(3).reshape(()), "FP32").shape == ()
    turned = np.arange(6, dtype=np.int32).reshape(2, 3).T
    out = wire_array("x", turned, "INT32")
    assert out.flags.c_contiguous
    assert (out == turned).all()
