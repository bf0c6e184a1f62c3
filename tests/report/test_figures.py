"""Figures as every view of a report writes them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tritonforge.report import figures


@pytest.mark.parametrize(
    ("function", "value", "said"),
    [
        (figures.number, None, "–"),
        (figures.number, math.nan, "–"),
        (figures.number, math.inf, "–"),
        (figures.number, 0.0, "0"),
        (figures.number, 1.19e-7, "1.19e-07"),
        (figures.number, 0.01314, "0.0131"),
        (figures.number, -2.5, "-2.5"),
        (figures.number, 99.96, "100"),
        (figures.number, 1940.2, "1,940"),
        (figures.number, 3e9, "3.00e+09"),
        (figures.share, 1.0, "100 %"),
        (figures.share, 0.999999, "99.99 %"),
        (figures.share, None, "–"),
        (figures.size, 0, "0 B"),
        (figures.size, 1023, "1023 B"),
        (figures.size, 2048, "2 KiB"),
        (figures.size, 3176678, "3.03 MiB"),
        (figures.size, 1023 << 20, "1023 MiB"),
        (figures.size, 5 << 40, "5 TiB"),
        (figures.seconds, 0.001, "under 10 ms"),
        (figures.seconds, 1.5, "1.50 s"),
        (figures.seconds, 7200.0, "7,200 s"),
        (figures.moment, "2026-01-02T03:04:05Z", "2026-01-02 03:04:05 UTC"),
        (figures.moment, "yesterday", "yesterday"),
        (figures.short, "ab" * 32, "abababababab"),
        (figures.hardware_in_words, None, "unknown hardware"),
        (
            figures.hardware_in_words,
            {"cpu": "A", "usable_cpus": 1, "memory_bytes": 1 << 34, "gpus": [{"model": "G"}, {"model": "G"}]},
            "A, 1 CPU usable, 16 GiB, 2 × G",
        ),
    ],
)
def test_figures_in_words(function: Any, value: Any, said: str) -> None:
    assert function(value) == said
