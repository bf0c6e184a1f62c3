"""Plots take no figures, one, and figures that are hundreds of decades apart."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.measure import Estimate, Level, Outcome
from tritonforge.report import plots
from tritonforge.report.document import ParityRow
from tritonforge.report.scale import fit

from .making import level

SLO = {"p50_ms": 20, "p95_ms": 50, "throughput_min": 10}
LEVEL_PLOTS = [plots.latency, plots.throughput, plots.windows]
FAILED = Level(8, 1, Outcome.FAILED, reason="it fell over")


def row(max_abs: float | None, **more: Any) -> ParityRow:
    values: dict[str, Any] = {
        "model": "net",
        "case": "a",
        "output": "y",
        "ok": True,
        "max_abs": max_abs,
        "max_rel": None,
        "cosine": None,
        "agreement": None,
        "bound": 1e-4,
        "reason": None,
        "reference": "the source",
        "at": "now",
    }
    return ParityRow(**{**values, **more})


def numbers(text: str) -> ET.Element:
    """The picture, parsed; every coordinate in it is a finite number inside of the frame."""
    root = ET.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for one in root.iter():
        for name, edge in {"x1": width, "x2": width, "y1": height, "y2": height, "cx": width, "cy": height}.items():
            if name in one.attrib:
                assert -1 <= float(one.attrib[name]) <= edge + 1
        for point in one.attrib.get("points", "").split():
            assert all(math.isfinite(float(part)) for part in point.split(","))
    return root


@pytest.mark.parametrize("plot", LEVEL_PLOTS)
@pytest.mark.parametrize(
    "levels",
    [
        [],
        [FAILED],
        [level(1)],
        [level(1, windows=1)],
        [level(1, windows=0)],
        [level(1), FAILED, level(64, 1e9)],
        [level(1, 1e-12), level(2, 1e12)],
        [level(1, 0.0)],
        [level(concurrency) for concurrency in (1, 2, 4, 8, 16, 32, 64, 128)],
        [level(1, throughput=Estimate(math.nan, None, None, 0), p99_us=Estimate(math.inf, None, None, 0))],
        [level(1, throughput=Estimate(5.0, None, None, 1))],
    ],
    ids=range(11),
)
@pytest.mark.parametrize("slo", [{}, SLO, {"p95_ms": 1e-9, "throughput_min": 0}])
def test_level_plots_take_anything_that_can_be_measured(plot: Any, levels: list[Level], slo: dict[str, Any]) -> None:
    root = numbers(plot("id", levels, slo).text)
    assert root.find("title") is not None
    assert root.find("desc") is not None


def test_latency_shows_every_percentile_with_its_interval_and_every_bound() -> None:
    root = numbers(plots.latency("id", [level(1), level(4)], SLO).text)
    said = " ".join(root.itertext())
    for word in ("p50", "p90", "p95", "p99", "p50 ≤ 20 ms", "p95 ≤ 50 ms", "0.9 to 1.1"):
        assert word in said
    whiskers = [one for one in root.iter("line") if one.attrib["class"].startswith("interval")]
    assert len(whiskers) == 2 * 4 * 3


def test_throughput_leaves_a_level_out_that_was_not_measured_and_says_why() -> None:
    said = " ".join(numbers(plots.throughput("id", [level(1), FAILED], SLO).text).itertext())
    assert "failed" in said
    assert "8 in flight:" not in said


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(None)],
        [row(math.nan)],
        [row(0.0)],
        [row(0.0, bound=None)],
        [row(1e-320), row(1e300)],
        [row(1e-9), row(3.0, ok=False)],
        [row(10.0**-power) for power in range(100)],
        [row(1e-9, case="c" * 500)],
    ],
    ids=range(9),
)
def test_parity_takes_exact_tiny_and_huge_differences(rows: list[ParityRow]) -> None:
    numbers(plots.parity("id", rows).text)


def test_parity_shows_the_largest_differences_where_there_are_too_many() -> None:
    said = " ".join(
        numbers(plots.parity("id", [row(10.0**-n, case=f"case {n:02}") for n in range(60)]).text).itertext()
    )
    assert "case 00" in said
    assert "case 59" not in said
    assert "20 smaller ones are not" in said


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))), st.sampled_from([None, True, False])
)
def test_a_scale_maps_everything_into_its_range_with_rising_ticks(values: list[float | None], log: bool | None) -> None:
    scale = fit(values, 300.0, 10.0, log=log)
    assert scale.low < scale.high
    assert all(a < b for a, b in itertools.pairwise(scale.ticks))
    for value in [*scale.ticks, *(value for value in values if value is not None and math.isfinite(value))]:
        assert 10.0 - 1e-6 <= scale(value) <= 300.0 + 1e-6


def test_wide_ranges_are_logarithmic_and_narrow_ones_start_at_zero() -> None:
    assert fit([1, 1000], 0, 1).log
    narrow = fit([3, 7], 0, 1)
    assert (narrow.log, narrow.low, narrow.ticks[-1]) == (False, 0.0, 8.0)
