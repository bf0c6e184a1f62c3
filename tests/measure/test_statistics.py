"""Windows, percentiles and intervals."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.measure.level import Level, Outcome
from tritonforge.measure.statistics import cut_by_count, cut_by_time, percentile, section, summarise, t_quantile

spans = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 5_000)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (9, 2.262), (30, 2.042), (31, 2.0395), (60, 2.0003), (1000, 1.9623)]
)
def test_students_t(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(("share", "expected"), [(1, 1), (50, 50), (95, 95), (99, 99), (100, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile(list(range(1, 101)), share) == expected
    assert percentile([7.0], share) == 7.0


@given(spans, st.integers(1, 12))
def test_cutting_by_time_keeps_every_request_answered_in_time_exactly_once(
    items: list[tuple[int, int]], n: int
) -> None:
    start, end = 1_000, 11_003
    cut = cut_by_time(items, start, end, n)
    assert len(cut) == n
    assert (cut[0][0], cut[-1][1]) == (start, end)
    assert all(before[1] == after[0] for before, after in pairwise(cut))
    assert all(low <= span[1] < high for low, high, part in cut for span in part)
    assert sum(len(part) for *_, part in cut) == sum(start <= span[1] < end for span in items)


@given(spans, st.integers(1, 12))
def test_cutting_by_count_keeps_every_request(items: list[tuple[int, int]], n: int) -> None:
    cut = cut_by_count(items, n)
    assert sorted(span for *_, part in cut for span in part) == sorted(items)
    assert cut[0][0] == min(span[0] for span in items)
    assert cut[-1][1] == max(span[1] for span in items)


def test_two_windows_give_no_interval() -> None:
    found = section(5.0, [4.0, 6.0])
    assert (found.low, found.high, found.windows) == (None, None, 2)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=30), st.floats(0, 1e6))
def test_an_interval_contains_its_estimate(parts: list[float], pooled: float) -> None:
    found = section(pooled, parts)
    assert found.low is not None and found.high is not None
    assert found.low <= pooled <= found.high


def test_equal_windows_give_an_interval_without_width() -> None:
    assert section(5.0, [5.0] * 4).high == 5.0


def test_a_window_without_answers_counts_for_throughput_and_not_for_latency() -> None:
    level = summarise(Level(1, 1, Outcome.MEASURED), cut_by_time([(0, 10), (10, 20), (70, 80)], 0, 100, 4))
    assert [window.requests for window in level.windows] == [2, 0, 0, 1]
    assert level.throughput is not None and level.p50_us is not None
    assert (level.throughput.windows, level.p50_us.windows) == (4, 2)
    assert level.windows[1].p99_us is None


def test_nothing_answered_gives_no_figures() -> None:
    level = summarise(Level(1, 1, Outcome.MEASURED), cut_by_time([], 0, 100, 4))
    assert (level.requests, level.throughput, level.p99_us) == (0, None, None)


def test_the_interval_holds_the_truth_about_nineteen_times_in_twenty() -> None:
    source, hits, tries = random.Random(7), 0, 300
    truth = 2.302585  # the 90th percentile of an exponential distribution
    for _try in range(tries):
        windows = [sorted(source.expovariate(1.0) for _ in range(100)) for _ in range(10)]
        found = section(
            percentile(sorted(item for part in windows for item in part), 90),
            [percentile(part, 90) for part in windows],
        )
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / tries <= 0.99
