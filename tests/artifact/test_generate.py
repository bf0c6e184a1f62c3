from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature, Tensor


def one(datatype: str, *dims: int | str, batched: bool = True) -> Signature:
    shape = ("N", *dims) if batched else dims
    return Signature((Tensor("x", datatype, shape),), (), batched)


@given(st.sampled_from(sorted(BY_NAME)), st.integers(1, 5), st.integers(0, 9), st.lists(st.integers(1, 4), max_size=2))
def test_the_same_arguments_give_the_same_values_of_the_right_kind(
    datatype: str, batch: int, seed: int, dims: list[int]
) -> None:
    signature = one(datatype, *dims)
    first, second = (make_inputs(signature, batch=batch, sizes={}, seed=seed)["x"] for _ in range(2))
    assert first.shape == (batch, *dims)
    assert first.dtype == np.dtype(BY_NAME[datatype].numpy or "float32")
    assert first.tolist() == second.tolist()


def test_another_seed_gives_other_values() -> None:
    signature = one("FP32", 8)
    a, b = (make_inputs(signature, batch=1, sizes={}, seed=seed)["x"] for seed in (0, 1))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("datatype", "limits", "low", "high"),
    [
        ("FP32", {"low": 2, "high": 3}, 2, 3),
        ("FP32", {"low": 2}, 2, 4),
        ("FP32", {"high": 0}, -1, 0),
        ("INT64", {}, 0, 9),
        ("INT64", {"low": 5, "high": 6}, 5, 6),
        ("UINT8", {"low": 250, "high": 255}, 250, 255),
        ("INT8", {"low": -128, "high": 127}, -128, 127),
        ("INT64", {"low": 100}, 100, 109),
        ("BOOL", {}, 0, 1),
        ("INT32", {"values": [3, 7]}, 3, 7),
    ],
)
def test_values_stay_in_their_range(datatype: str, limits: dict[str, Any], low: float, high: float) -> None:
    values = make_inputs(one(datatype, 500), batch=1, sizes={}, seed=0, ranges={"x": limits})["x"]
    assert low <= values.min() <= values.max() <= high
    assert values.min() != values.max()


def test_texts_are_chosen_from_what_is_given() -> None:
    values = make_inputs(one("BYTES", 50), batch=2, sizes={}, seed=0, ranges={"x": {"values": ["é", ""]}})["x"]
    assert set(values.reshape(-1).tolist()) == {"é".encode(), b""}


def test_axes_of_one_name_have_one_size_and_the_batch_none() -> None:
    signature = Signature(
        (Tensor("a", "FP32", ("N", "seq", 2)), Tensor("b", "INT64", ("N", "seq"))),
        (Tensor("y", "FP32", ("N", "out")),),
        True,
    )
    assert axis_sizes(signature, {"seq": (3, 5)}, largest=False) == {"seq": 3, "out": 1}
    sizes = axis_sizes(signature, {"seq": (3, 5)}, largest=True)
    assert sizes == {"seq": 5, "out": 16}
    made = make_inputs(signature, batch=4, sizes=sizes, seed=0)
    assert (made["a"].shape, made["b"].shape) == ((4, 5, 2), (4, 5))


def test_without_a_batch_axis_0_is_like_any_other() -> None:
    signature = one("FP32", "N", 2, batched=False)
    sizes = axis_sizes(signature, {"N": (2, 3)}, largest=True)
    assert make_inputs(signature, batch=99, sizes=sizes, seed=0)["x"].shape == (3, 2)
