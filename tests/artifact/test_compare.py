from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritonforge.artifact.compare import DEFAULT_TOLERANCE, compare

INF, NAN = np.inf, np.nan


def f32(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float32)


@pytest.mark.parametrize(
    ("datatype", "found", "expected", "tolerance", "ok"),
    [
        ("FP32", f32(1, 2), f32(1, 2), None, True),
        ("FP32", f32(1.00005), f32(1), None, True),
        ("FP32", f32(1.01), f32(1), None, False),
        ("FP32", f32(1.01), f32(1), {"abs": 0.02}, True),
        ("FP32", f32(101), f32(100), {"rel": 0.02}, True),
        ("FP32", f32(101), f32(100), {"abs": 0.5}, False),
        ("FP32", f32(2, 4), f32(1, 2), {"cosine": 0.999}, True),
        ("FP32", f32(2, 4), f32(1, 2), {"cosine": 0.999, "abs": 0.1}, False),
        ("FP32", f32(-1, -2), f32(1, 2), {"cosine": 0.5}, False),
        ("FP32", f32(0, 0), f32(0, 0), {"cosine": 0.999}, True),
        ("FP32", f32(1, 0), f32(0, 0), {"cosine": 0.5}, False),
        ("FP32", f32(), f32(), None, True),
        ("FP32", f32(1), f32(1, 2), {"abs": 1e9}, False),
        ("FP32", f32(1, NAN), f32(1, NAN), None, True),
        ("FP32", f32(1, NAN), f32(1, 2), {"abs": 1e9}, False),
        ("FP32", f32(1, 2), f32(1, NAN), {"abs": 1e9}, False),
        ("FP32", f32(INF), f32(INF), None, True),
        ("FP32", f32(INF), f32(-INF), {"abs": 1e9}, False),
        ("FP32", f32(INF), f32(NAN), {"abs": 1e9}, False),
        ("FP32", f32(1, INF), f32(1, 3e38), {"rel": 1e9}, False),
        ("FP16", f32(1.005), f32(1), None, True),
        ("INT32", np.int32([1, 2]), np.int32([1, 2]), None, True),
        ("INT32", np.int32([1, 3]), np.int32([1, 2]), None, False),
        ("INT32", np.int32([1, 3]), np.int32([1, 2]), {"abs": 1}, True),
        ("UINT8", np.uint8([0]), np.uint8([255]), {"abs": 1}, False),
        ("BOOL", np.array([True]), np.array([False]), None, False),
        ("BYTES", np.array([b"a", "é"], object), np.array(["a", "é".encode()], object), None, True),
        ("BYTES", np.array([b"a"], object), np.array([b"b"], object), {"abs": 9}, False),
    ],
)
def test_the_verdict(datatype: str, found: Any, expected: Any, tolerance: dict[str, float] | None, ok: bool) -> None:
    result = compare("y", datatype, found, expected, tolerance)
    assert result.ok is ok
    assert (result.reason is None) is ok


finite = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6, width=32))


@given(finite)
def test_everything_equals_itself(array: np.ndarray[Any, Any]) -> None:
    for datatype in ("FP64", "FP32", "FP16"):
        result = compare("y", datatype, array, array)
        assert result.ok
        assert result.max_abs == 0


@given(finite, st.floats(0.5, 100))
def test_what_is_moved_beyond_the_tolerance_fails(array: np.ndarray[Any, Any], step: float) -> None:
    limits = DEFAULT_TOLERANCE["FP32"]
    moved = (
        array.astype(np.float64) + np.sign(array + 0.5) * (limits["abs"] + limits["rel"] * np.abs(array) + step) * 1.1
    )
    assert not compare("y", "FP32", moved.astype(np.float32), array).ok


def test_the_share_of_rows_with_the_same_winner_is_reported() -> None:
    found = np.float32([[1, 2], [3, 1], [1, 2], [1, 2]])
    expected = np.float32([[1, 2], [1, 3], [1, 2], [1, 2]])
    assert compare("y", "FP32", found, expected).agreement == 0.75


def test_the_reason_names_figures_and_bounds() -> None:
    reason = str(compare("y", "FP32", f32(2), f32(1), {"abs": 0.5, "rel": 0.1}).reason)
    assert "max abs 1" in reason
    assert "abs 0.5, rel 0.1" in reason


@pytest.mark.parametrize(("shape", "ok"), [((4, 3), False), ((2, 2, 3), False), ((4,), False), ((4, 1), False)])
def test_an_agreement_that_is_asked_for_is_held_in_every_shape(shape: tuple[int, ...], ok: bool) -> None:
    expected = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    found = compare("y", "FP32", expected[..., ::-1].copy(), expected, {"top1": 0.99})
    assert found.ok is ok
    assert "top-1 agreement" in str(found.reason)
