"""Triton's counters, read from texts that a real server gave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.measure.metrics import FAILURE, SUCCESS, difference, parse_metrics

from .conftest import DATA

BEFORE = (DATA / "metrics_before.txt").read_text()
AFTER = (DATA / "metrics_after.txt").read_text()


def counters(success: int, failure: int, model: str = "m") -> str:
    return (
        f"# HELP {SUCCESS} Number\n"
        f'{SUCCESS}{{model="{model}",version="1"}} {success}\n'
        f'{FAILURE}{{model="{model}",reason="OTHER",version="1"}} {failure}\n'
    )


def test_the_difference_over_a_run_of_an_ensemble() -> None:
    found = difference(BEFORE, AFTER, "ens")
    assert (found.success, found.failure, found.problem) == (98, 4, None)
    assert {reason for reason, count in found.by_reason.items() if count} == {"OTHER"}
    assert found.rate == pytest.approx(4 / 102)


def test_errors_that_a_python_model_answers_with_count_as_its_successes() -> None:
    found = difference(BEFORE, AFTER, "bad")
    assert (found.success, found.failure) == (1, 0)


def test_members_of_an_ensemble_count_the_requests_again() -> None:
    assert difference(BEFORE, AFTER, "add").success == 100


@pytest.mark.parametrize("version", [None, 1, "1"])
def test_versions_are_told_apart(version: int | str | None) -> None:
    assert difference(BEFORE, AFTER, "ens", version).success == 98
    assert "version 2" in (difference(BEFORE, AFTER, "ens", 2).problem or "")


def test_an_unknown_model_has_a_problem_and_no_rate() -> None:
    found = difference(BEFORE, AFTER, "nope")
    assert "no counters of model 'nope'" in (found.problem or "")
    assert found.rate is None


@pytest.mark.parametrize("after", [counters(3, 0), counters(9, 0, "other") + f'{SUCCESS}{{model="m",version="1"}} 9\n'])
def test_counters_that_run_backwards_or_vanish_mean_a_restart(after: str) -> None:
    assert "restarted" in (difference(counters(5, 0), after, "m").problem or "")


def test_a_series_that_appears_began_at_zero() -> None:
    found = difference("", counters(5, 2), "m")
    assert (found.success, found.failure, found.problem) == (5, 2, None)


def test_labels_are_unescaped_and_half_a_last_line_is_left_out() -> None:
    text = 'a{x="q\\"\\\\\\n,}",y="2"} 1.5e3 1700000000\nnonsense\nb 2\nc{model="m"} 12'
    first, second = parse_metrics(text)
    assert (first.labels, first.value) == ({"x": 'q"\\\n,}', "y": "2"}, 1500.0)
    assert (second.name, second.value) == ("b", 2.0)


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    parse_metrics(text)
