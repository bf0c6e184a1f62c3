"""The three verdicts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tritonforge.errors import SpecError
from tritonforge.measure import Estimate, FailureCount, GateResult, Level, Outcome, Slo, Verdict, judge, worst
from tritonforge.measure.gate import MIN_REQUESTS, wilson

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def estimate(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value, value * 0.99 if low is None else low, value * 1.01 if high is None else high, 10)


def level(**values: Any) -> Level:
    figures = {"p50_us": estimate(1000), "p95_us": estimate(2000), "p99_us": estimate(3000)}
    whole = {"outcome": Outcome.MEASURED, "requests": 5000, "throughput": estimate(500), **figures}
    return Level(1, 1, **{**whole, **values})


CLEAN = FailureCount("m", 5100, 0, {})
ALL = Slo(throughput_min=400, p50_ms=2, p95_ms=3, p99_ms=4)


def only(slo: Slo, measured: Level, failures: FailureCount | None = CLEAN) -> tuple[str, Verdict]:
    condition = judge(slo, measured, failures).conditions[0]
    return condition.reason, condition.verdict


def test_a_level_that_meets_everything_passes_with_a_line_for_each_condition() -> None:
    result = judge(ALL, level(), CLEAN)
    assert result.verdict is PASS
    assert [item.name for item in result.conditions] == ["throughput", "p50", "p95", "p99", "error rate"]
    p99 = result.conditions[3]
    assert (p99.measured, p99.bound, p99.unit) == (3.0, 4, "ms")


@pytest.mark.parametrize(
    ("slo", "measured", "verdict", "says"),
    [
        (Slo(throughput_min=500), level(throughput=estimate(510, 501, 519)), PASS, "meets"),
        (Slo(throughput_min=500), level(throughput=estimate(510, 500, 520)), PASS, "meets"),
        (Slo(throughput_min=500), level(throughput=estimate(510, 499, 521)), INCONCLUSIVE, "contains"),
        (Slo(throughput_min=500), level(throughput=estimate(490, 481, 499)), FAIL, "violates"),
        (Slo(throughput_min=500), level(throughput=estimate(490, 481, 499), client_limited=True), INCONCLUSIVE, "send"),
        (Slo(throughput_min=500), level(throughput=estimate(510, 501, 519), client_limited=True), PASS, "meets"),
        (Slo(throughput_min=500), level(throughput=Estimate(900, None, None, 2)), INCONCLUSIVE, "2 windows"),
        (Slo(throughput_min=500), level(throughput=None), INCONCLUSIVE, "not measured"),
        (Slo(throughput_min=500), level(throughput=estimate(math.nan)), INCONCLUSIVE, "not measured"),
        (Slo(p99_ms=3), level(p99_us=estimate(2900, 2800, 3000)), PASS, "meets"),
        (Slo(p99_ms=3), level(p99_us=estimate(2900, 2800, 3001)), INCONCLUSIVE, "contains"),
        (Slo(p99_ms=3), level(p99_us=estimate(3200, 3001, 3400)), FAIL, "violates"),
        (Slo(p99_ms=3), level(p99_us=estimate(100), requests=999), INCONCLUSIVE, "999 requests are too few"),
        (Slo(p99_ms=3), level(p99_us=estimate(9000), requests=999), INCONCLUSIVE, "1000 are needed"),
        (Slo(p99_ms=3), level(p99_us=estimate(100), requests=1000), PASS, "meets"),
        (Slo(p95_ms=3), level(p95_us=estimate(100), requests=199), INCONCLUSIVE, "too few for p95"),
        (Slo(p50_ms=3), level(p50_us=estimate(100), requests=20), PASS, "meets"),
        (Slo(p99_ms=3), level(p99_us=estimate(100), client_limited=True), INCONCLUSIVE, "keep up"),
        (Slo(p99_ms=3), level(p99_us=estimate(9000), client_limited=True), FAIL, "violates"),
        (Slo(p99_ms=3), level(p99_us=None), INCONCLUSIVE, "not measured"),
        (Slo(p99_ms=3), level(outcome=Outcome.UNSTABLE, reason="it shook"), INCONCLUSIVE, "it shook"),
        (Slo(p99_ms=3), level(outcome=Outcome.MISSING), INCONCLUSIVE, "missing"),
    ],
)
def test_a_condition(slo: Slo, measured: Level, verdict: Verdict, says: str) -> None:
    reason, found = only(slo, measured)
    assert found is verdict, reason
    assert says in reason


@pytest.mark.parametrize(
    ("bound", "measured", "failures", "verdict", "says"),
    [
        (0.0, level(), CLEAN, PASS, "0 of 5100"),
        (0.0, level(), None, INCONCLUSIVE, "not read"),
        (0.5, level(), None, INCONCLUSIVE, "not read"),
        (0.0, level(), FailureCount("m", 0, 0, {}, "restarted"), INCONCLUSIVE, "restarted"),
        (0.0, level(), FailureCount("m", 5000, 1, {"OTHER": 1}), FAIL, "1 of 5001"),
        (0.0, level(errors=1), CLEAN, FAIL, "1 of"),
        (0.0, level(errors=1), None, FAIL, "1 of 5001"),
        (0.0, level(outcome=Outcome.FAILED, requests=0, errors=2), CLEAN, FAIL, "2 of"),
        (0.5, level(outcome=Outcome.FAILED, requests=0, errors=2, reason="ended"), CLEAN, INCONCLUSIVE, "ended"),
        (0.0, level(outcome=Outcome.TIMEOUT, requests=0, reason="hung"), CLEAN, INCONCLUSIVE, "hung"),
        (
            0.0,
            level(),
            FailureCount("m", 4999, 0, {}),
            INCONCLUSIVE,
            "the server counted 4999 requests, the client 5000",
        ),
        (0.01, level(), FailureCount("m", 9990, 10, {}), PASS, "10 of 10000"),
        (0.01, level(), FailureCount("m", 9900, 100, {}), INCONCLUSIVE, "too few requests to tell"),
        (0.01, level(), FailureCount("m", 9800, 200, {}), FAIL, "200 of 10000"),
        (0.0, level(outcome=Outcome.MEASURED, requests=0), FailureCount("m", 0, 0, {}), INCONCLUSIVE, "no request"),
    ],
)
def test_the_error_rate(
    bound: float, measured: Level, failures: FailureCount | None, verdict: Verdict, says: str
) -> None:
    reason, found = only(Slo(error_rate_max=bound), measured, failures)
    assert found is verdict, reason
    assert says in reason


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([PASS, PASS], PASS),
        ([PASS, INCONCLUSIVE], INCONCLUSIVE),
        ([PASS, INCONCLUSIVE, FAIL], FAIL),
        ([], INCONCLUSIVE),
    ],
)
def test_the_worst_verdict_wins(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) is expected


@pytest.mark.parametrize("values", [{"p99_ms": -1}, {"throughput_min": math.nan}, {"error_rate_max": 1.5}])
def test_a_bound_that_is_none_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        Slo(**values)


def test_wilsons_interval() -> None:
    assert wilson(10, 1000) == pytest.approx((0.00544, 0.01831), abs=1e-5)
    assert wilson(0, 100)[0] == 0.0


def test_a_result_survives_json() -> None:
    result = judge(ALL, level(p99_us=None), None)
    assert GateResult.from_json(result.to_json()) == result


numbers = st.floats(0.001, 1e6)
figures = st.tuples(numbers, numbers, numbers).map(sorted).map(lambda edges: Estimate(edges[1], edges[0], edges[2], 10))


@given(figures, numbers, st.integers(0, 20_000), st.booleans())
def test_latency_never_passes_or_fails_across_its_bound(
    figure: Estimate, bound: float, requests: int, limited: bool
) -> None:
    in_us = Estimate(figure.value * 1000, (figure.low or 0) * 1000, (figure.high or 0) * 1000, 10)
    for share in (50, 95, 99):
        measured = level(requests=requests, client_limited=limited, **{f"p{share}_us": in_us})
        condition = judge(Slo(**{f"p{share}_ms": bound}), measured, CLEAN).conditions[0]
        assert condition.low is not None and condition.high is not None
        if condition.verdict is PASS:
            assert condition.high <= bound and requests >= MIN_REQUESTS[share]
        if condition.verdict is FAIL:
            assert condition.low > bound and requests >= MIN_REQUESTS[share]


@given(figures, numbers, st.booleans())
def test_throughput_never_passes_or_fails_across_its_bound(figure: Estimate, bound: float, limited: bool) -> None:
    condition = judge(Slo(throughput_min=bound), level(throughput=figure, client_limited=limited), CLEAN).conditions[0]
    assert figure.low is not None and figure.high is not None
    assert condition.verdict is not PASS or figure.low >= bound
    assert condition.verdict is not FAIL or figure.high < bound


@given(figures, numbers, st.integers(0, 5000), st.integers(0, 5000))
def test_more_requests_with_the_same_figures_never_turn_a_verdict_round(
    figure: Estimate, bound: float, few: int, more: int
) -> None:
    less, greater = (
        judge(Slo(p99_ms=bound), level(requests=n, p99_us=figure), CLEAN).conditions[0].verdict
        for n in (few, few + more)
    )
    assert less is greater or less is INCONCLUSIVE


@given(st.integers(0, 50), st.integers(1, 20_000), st.integers(1, 50), st.floats(0.0001, 1))
def test_the_same_share_of_failures_in_more_requests_never_turns_a_verdict_round(
    failed: int, served: int, times: int, bound: float
) -> None:
    verdicts = [
        judge(Slo(error_rate_max=bound), level(requests=1), FailureCount("m", served * n, failed * n, {})).verdict
        for n in (1, times)
    ]
    assert verdicts[0] is verdicts[1] or INCONCLUSIVE in verdicts
    assert verdicts[0] is not FAIL or verdicts[1] is not PASS


@given(figures, st.sampled_from([o for o in Outcome if o is not Outcome.MEASURED]), st.booleans())
def test_whatever_was_not_measured_never_passes(figure: Estimate, outcome: Outcome, counted: bool) -> None:
    measured = replace(level(p99_us=figure, throughput=figure), outcome=outcome)
    result = judge(Slo(throughput_min=0, p99_ms=1e9, error_rate_max=1), measured, CLEAN if counted else None)
    assert result.verdict is INCONCLUSIVE
    assert all(item.verdict is not PASS for item in result.conditions)


@given(numbers, st.floats(0.01, 1e6))
def test_a_tighter_interval_around_the_same_value_never_turns_a_verdict_round(value: float, bound: float) -> None:
    assume(value != bound)
    verdicts = [
        judge(Slo(throughput_min=bound), level(throughput=estimate(value, value - w, value + w)), CLEAN)
        .conditions[0]
        .verdict
        for w in (value * 0.5, value * 0.1, value * 0.01, 0.0)
    ]
    settled = [verdict for verdict in verdicts if verdict is not INCONCLUSIVE]
    assert len(set(settled)) == 1
    assert verdicts == [INCONCLUSIVE] * (len(verdicts) - len(settled)) + settled
