"""The verdict over a newcomer at one weight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tritonforge.measure.gate import Verdict
from tritonforge.rollout.analysis import Bounds, Reading, Seen, between, enough, judge, reading

BOUNDS = Bounds(min_requests=20, failure_rate_max=0.01, latency_ratio_max=2.0, latency_floor_ms=5.0)
PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def seen(requests: int, failures: int = 0, ms: float = 10.0, problem: str | None = None) -> Seen:
    return Seen(requests, failures, {"net": (ms * 1000.0 * requests, float(requests))}, problem)


@pytest.mark.parametrize(
    ("new", "old", "verdict", "words"),
    [
        (seen(100), seen(100), PASS, "100 requests, none worse"),
        (seen(0), seen(0), PASS, "no requests came"),
        (seen(0), None, PASS, "no requests came"),
        (seen(0), seen(50), UNKNOWN, "only 0 requests came"),
        (seen(19), seen(50), UNKNOWN, "only 19 requests came to the newcomer, and 20 are asked for"),
        (seen(20), seen(50), PASS, "20 requests"),
        (seen(100, 1), seen(100), PASS, "100 requests"),
        (seen(100, 2), seen(100), FAIL, "2 of 100 requests failed (2.0%)"),
        (seen(100, 2), seen(100, 1), PASS, "100 requests"),
        (seen(100, 50), seen(100, 50), PASS, "100 requests"),
        (seen(100, 52), seen(100, 50), FAIL, "52 of 100"),
        (seen(3, 3), seen(100), FAIL, "3 of 3"),
        (seen(0, 2), seen(100), FAIL, "2 of 0 requests failed (100.0%)"),
        (seen(100, ms=20.0), seen(100, ms=10.0), PASS, "100 requests"),
        (seen(100, ms=20.1), seen(100, ms=10.0), FAIL, "'net' takes 20.1 ms, 2.0 times as long as before"),
        (seen(100, ms=4.9), seen(100, ms=1.0), PASS, "100 requests"),  # below the floor
        (seen(100, ms=99.0), None, PASS, "100 requests"),
        (seen(100, ms=99.0), seen(4, ms=1.0), PASS, "none worse; times not compared: no model has 5 answers of both"),
        (seen(100, problem="its metrics could not be read"), seen(100), UNKNOWN, "the newcomer cannot be judged"),
        (seen(100), seen(100, problem="it was restarted"), UNKNOWN, "the old server cannot be compared with"),
        (seen(100, 100, problem="x"), seen(100), UNKNOWN, "the newcomer cannot be judged"),
    ],
)
def test_verdicts(new: Seen, old: Seen | None, verdict: Verdict, words: str) -> None:
    found = judge(new, old, BOUNDS)
    assert (found.verdict, words in found.reason) == (verdict, True), found.reason


@pytest.mark.parametrize(("new", "old"), [(seen(100), seen(100)), (seen(100), None), (seen(0), seen(0))])
def test_nothing_is_said_about_times_that_were_compared_or_had_no_reason_to_be(new: Seen, old: Seen | None) -> None:
    assert "compared" not in judge(new, old, BOUNDS).reason
    assert "compared" not in judge(seen(100), seen(4), replace(BOUNDS, latency_ratio_max=None)).reason


def test_the_slowest_model_decides() -> None:
    micros = {"fast": (1e6, 100.0), "slow": (9e6, 100.0)}
    before = {"fast": (1e6, 100.0), "slow": (3e6, 100.0)}
    found = judge(Seen(200, 0, micros), Seen(200, 0, before), BOUNDS)
    assert found.verdict is FAIL
    assert found.reason == "'slow' takes 90.0 ms, 3.0 times as long as before"
    assert found.facts["latency_ratio"] == 3.0
    assert judge(Seen(200, 0, micros), Seen(200, 0, before), replace(BOUNDS, latency_ratio_max=None)).verdict is PASS


def test_one_failure_is_too_many_where_none_is_allowed() -> None:
    strict = replace(BOUNDS, failure_rate_max=0.0)
    assert judge(seen(1_000_000, 1), seen(100), strict).verdict is FAIL
    assert judge(seen(1_000_000, 0), seen(100), strict).verdict is PASS


METRICS = """\
nv_inference_request_success{model="net",version="1"} 10
nv_inference_request_success{model="net",version="2"} 5
nv_inference_request_failure{model="net",version="1",reason="OTHER"} 1
nv_inference_request_failure{model="net",version="1",reason="BACKEND"} 2
nv_inference_request_duration_us{model="net",version="1"} 1000
nv_gpu_utilization 7
"""


def rows(requests: int, broken: int = 0, errors: int = 0) -> dict[str, int]:
    return {"stot": requests, "eresp": broken, "hrsp_5xx": errors}


def test_a_reading_adds_backends_versions_and_reasons() -> None:
    proxy = {"triton_http": {"blue": rows(3, 1), "green": rows(99)}, "triton_grpc": {"blue": rows(4, 0, 2)}}
    assert reading(proxy, "blue", METRICS) == Reading(7, 3, {"net": 15.0}, {"net": 3.0}, {"net": 1000.0})
    assert reading(proxy, "blue", None) == Reading(7, 3, None, None, None)
    assert reading({}, "blue", "") == Reading(0, 0, {}, {}, {})


def at(requests: int, answered: float, micros: float = 0.0, failures: float = 0.0, broken: int = 0) -> Reading:
    return Reading(requests, broken, {"net": answered}, {"net": failures}, {"net": micros})


def test_between_two_readings() -> None:
    found = between(at(10, 10, 1000, 1), at(30, 28, 5000, 3, broken=1))
    assert found == Seen(20, 3, {"net": (4000.0, 18.0)})
    assert found.failure_rate == 0.15


def test_a_model_that_was_not_there_before_counts_from_zero() -> None:
    assert between(Reading(0, 0, {}, {}, {}), at(5, 5, 500, 1)) == Seen(5, 1, {"net": (500.0, 5.0)})


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (Reading(0, 0, None, None, None), at(9, 9), "its metrics could not be read"),
        (at(0, 0), Reading(9, 0, None, None, None), "its metrics could not be read"),
        (at(10, 10, 100), at(20, 5, 100), "its counters ran backwards: it was restarted"),
        (at(10, 10, 100), at(20, 15, 50), "its counters ran backwards: it was restarted"),
        (at(10, 10), at(5, 20), "the proxy's counters ran backwards: it was restarted"),
    ],
)
def test_counters_that_cannot_be_used(before: Reading, after: Reading, problem: str) -> None:
    found = between(before, after)
    assert found.problem == problem
    assert not enough(found, replace(BOUNDS, min_requests=0))
    assert judge(found, None, BOUNDS).verdict is UNKNOWN


def test_enough_is_what_the_bounds_ask_for() -> None:
    assert not enough(seen(19), BOUNDS)
    assert enough(seen(20), BOUNDS)
