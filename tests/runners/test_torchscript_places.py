"""Inputs and outputs of TorchScript go where Triton's pytorch backend puts them."""

from __future__ import annotations

import pytest

from tritonforge.runners.torchscript import input_places, output_places


@pytest.mark.parametrize(
    ("names", "arguments", "places"),
    [
        (["b", "a"], ["a", "b"], [1, 0]),
        (["INPUT__1", "INPUT__0"], ["a", "b"], [1, 0]),
        (["a", "other"], ["a", "b"], [0, 1]),
        (["other", "a"], ["a", "b"], [0, 1]),
        (["x__", "y__1"], ["a", "b"], [0, 1]),
        (["x__one", "y__0"], ["a", "b"], [0, 1]),
        (["a__1", "b__0"], ["a__1", "b__0"], [0, 1]),
    ],
)
def test_inputs_go_by_argument_then_index_then_order(names: list[str], arguments: list[str], places: list[int]) -> None:
    assert input_places(names, arguments) == places


@pytest.mark.parametrize(
    ("names", "places"), [(["y", "z"], [0, 1]), (["y__1", "z__0"], [1, 0]), (["y__1", "z"], [0, 1])]
)
def test_outputs_go_by_index_then_order(names: list[str], places: list[int]) -> None:
    assert output_places(names) == places
