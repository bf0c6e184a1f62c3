"""From figures to pixels: linear or logarithmic, with round ticks, for no figures, one, or hundreds of decades."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LOG_FROM: Final = 30.0
"""From this ratio between the largest and the smallest figure a linear axis would hide the small ones."""
_TINY: Final = 1e-300
_HUGE: Final = 1e300


@dataclass(frozen=True, slots=True)
class Scale:
    """``low`` lies at pixel ``start`` and ``high`` at ``end``; figures outside are drawn at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.log:
            # Differences of logarithms: the ratio of two figures may be no figure any more.
            first = math.log10(self.low)
            part = (math.log10(value) - first) / (math.log10(self.high) - first)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


def fit(values: Iterable[float | None], start: float, end: float, *, log: bool | None = None, most: int = 6) -> Scale:
    """A scale that shows all ``values``: from 0 where it is linear, in whole steps where it is logarithmic.

    Figures that are None, NaN or infinite are left out. ``log`` None decides by the range.
    """
    known = [min(abs(value), _HUGE) for value in values if value is not None and math.isfinite(value)]
    above = [max(value, _TINY) for value in known if value > 0]
    if log is None:
        log = bool(above) and len(above) == len(known) and max(above) / min(above) >= LOG_FROM
    if log:
        return _log(above, start, end, most)
    top = max(above, default=0.0)
    step = _step(top / most if top > 0 else 0.2)
    count = max(1, math.ceil(top / step - 1e-9)) if top > 0 else 5
    return Scale(0.0, count * step, start, end, False, tuple(index * step for index in range(count + 1)))


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


def _log(above: list[float], start: float, end: float, most: int) -> Scale:
    first = math.floor(math.log10(min(above, default=0.1)) + 1e-9)
    last = math.ceil(math.log10(max(above, default=1.0)) - 1e-9)
    if last <= first:
        last = first + 1
    stride = max(1, math.ceil((last - first) / most))
    ticks = [10.0**power for power in range(first, last + 1, stride)]
    low, high = 10.0**first, 10.0**last
    if last - first <= 2:
        fine = [factor * 10.0**power for power in range(first, last) for factor in (1.0, 2.0, 5.0)]
        ticks = [*fine, high]
    return Scale(low, high, start, end, True, tuple(ticks))
