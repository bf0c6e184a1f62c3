"""What generated inputs of networks that read text look like: masks, and axes that are sums of others."""

from __future__ import annotations

import numpy as np
import pytest

from tritonforge.artifact.generate import axes_of, axis_sizes, make_inputs, size_of
from tritonforge.artifact.signature import Signature, Tensor


@pytest.mark.parametrize(
    ("dim", "axes"),
    [
        ("sequence", ["sequence"]),
        ("past + new", ["past", "new"]),
        ("past+new", ["past", "new"]),
        ("past + 1", ["past"]),
        ("?output.1", ["?output.1"]),
        ("floor(width/2 + 1)", ["floor(width/2 + 1)"]),
    ],
)
def test_a_sum_follows_its_parts_and_nothing_else_is_one(dim: str, axes: list[str]) -> None:
    assert axes_of(dim) == axes
    sizes = {axis: 3 + place for place, axis in enumerate(axes)}
    assert size_of(dim, sizes) == {"past + new": 7, "past+new": 7, "past + 1": 4}.get(dim, 3)


def test_inputs_of_one_request_agree_about_a_sum() -> None:
    signature = Signature(
        (
            Tensor("mask", "INT64", ("batch", "past + new")),
            Tensor("ids", "INT64", ("batch", "new")),
            Tensor("cache", "FP32", ("batch", 2, "past", 4)),
        ),
        (),
        batched=True,
    )
    sizes = axis_sizes(signature, {"past": (1, 8), "new": (2, 5)}, largest=True)
    assert sizes == {"past": 8, "new": 5}
    made = make_inputs(signature, batch=3, sizes=sizes, seed=0)
    assert {name: array.shape for name, array in made.items()} == {
        "mask": (3, 13),
        "ids": (3, 5),
        "cache": (3, 2, 8, 4),
    }


def test_a_mask_is_ones_that_end_in_zeros_and_one_row_is_full() -> None:
    signature = Signature((Tensor("mask", "INT64", ("batch", "sequence")),), (), batched=True)
    mask = make_inputs(signature, batch=16, sizes={"sequence": 9}, seed=0, ranges={"mask": {"mask": True}})["mask"]
    assert mask.dtype == np.int64
    assert mask[0].tolist() == [1] * 9
    assert (np.diff(mask, axis=1) <= 0).all() and (mask[:, 0] == 1).all()
    assert len({int(row.sum()) for row in mask}) > 3
