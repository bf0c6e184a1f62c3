from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.measure.paired import rank, ratio

FIGURES = st.lists(st.floats(0.1, 10), min_size=3, max_size=12)


def drifting(scale: float, seed: int, rounds: int = 8) -> list[float]:
    """Figures of a machine that gets slower by 5 % a round, with 1 % of noise that is each candidate's own."""
    noise = random.Random(seed)
    return [scale * 1.05**number * math.exp(noise.gauss(0, 0.01)) for number in range(rounds)]


def test_a_ratio_sees_through_drift_that_is_larger_than_the_difference() -> None:
    found = ratio(drifting(1.05, 1), drifting(1.0, 2))
    assert found.differs
    assert found.low < 1.05 < found.high


def test_equal_candidates_are_not_told_apart() -> None:
    assert not ratio(drifting(1.0, 1), drifting(1.0, 2)).differs


@given(FIGURES, st.integers(0, 1000))
def test_a_ratio_turned_round_is_its_reciprocal(a: list[float], seed: int) -> None:
    b = random.Random(seed).choices([0.5, 1.0, 3.0], k=len(a))
    there, back = ratio(a, b), ratio(b, a)
    assert there.value * back.value == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)


def test_two_rounds_allow_no_interval() -> None:
    with pytest.raises(ValueError, match="3 rounds at least"):
        ratio([1, 2], [1, 2])


def test_a_clearly_faster_candidate_is_taken_wherever_it_stands() -> None:
    found = rank({"first": drifting(2.0, 1), "fast": drifting(1.0, 2), "slow": drifting(3.0, 3)})
    assert (found.best, found.fastest, found.level_with) == ("fast", "fast", ())
    assert found.ratios["slow"].value == pytest.approx(3, rel=0.05)


def test_among_candidates_that_are_level_the_first_in_the_spec_is_taken() -> None:
    found = rank({"slow": drifting(2.0, 4), "first": drifting(1.002, 1), "second": drifting(1.0, 2)})
    assert found.best == "first"
    assert {found.fastest, *found.level_with} == {"first", "second"}
