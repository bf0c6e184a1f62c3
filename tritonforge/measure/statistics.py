"""Throughput and latency percentiles from request timestamps, with an interval over windows.

Requests in one window are not independent of each other, so the window is the unit. Every figure is taken once over
all requests (pooled) and once a window, and its 95 % interval is *sectioning*'s: pooled ± t(n-1) · sqrt(Σ(window -
pooled)² / (n(n-1))). Source: S. Asmussen and P. Glynn, *Stochastic Simulation* (2007), III.5; M. Nakayama,
*Confidence intervals for quantiles using sectioning* (ACM TOMACS, 2014). Centring on the pooled figure also charges
the bias that a percentile has in a short window to the interval, which makes it wider, never narrower.
Drift that is slower than a window makes neighbours alike and the interval too narrow: to compare two versions,
interleave them; do not compare two of these intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from tritonforge.measure.level import PERCENTILES, Estimate, Level, Window

MIN_WINDOWS: Final = 3
"""Fewer windows give no interval."""

_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

Span = tuple[int, int]
"""One answered request: when it was sent and when its last response came, in nanoseconds."""


def t_quantile(degrees: int) -> float:
    """Student's t at 97.5 %: tabulated to 30 degrees of freedom, then Cornish-Fisher (error below 0.001).

    Source: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.5.
    """
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value with at least ``share`` percent of ``ordered`` (ascending, not empty) at or below it."""
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def section(pooled: float, parts: Sequence[float]) -> Estimate:
    """The sectioning interval around ``pooled`` from its values in each window."""
    n = len(parts)
    if n < MIN_WINDOWS:
        return Estimate(pooled, None, None, n)
    half = t_quantile(n - 1) * math.sqrt(sum((part - pooled) ** 2 for part in parts) / (n * (n - 1)))
    return Estimate(pooled, max(0.0, pooled - half), pooled + half, n)


def cut_by_time(spans: Sequence[Span], start_ns: int, end_ns: int, windows: int) -> list[tuple[int, int, list[Span]]]:
    """Cut ``[start_ns, end_ns)`` into equal windows; a request belongs to the window in which it was answered."""
    cuts = [start_ns + (end_ns - start_ns) * i // windows for i in range(windows + 1)]
    cut: list[tuple[int, int, list[Span]]] = [(cuts[i], cuts[i + 1], []) for i in range(windows)]
    width = end_ns - start_ns
    for span in spans:
        if start_ns <= span[1] < end_ns:
            index = min(windows - 1, (span[1] - start_ns) * windows // width)
            # Integer cuts round down, so the arithmetic guess can be one too low or too high.
            index += span[1] >= cuts[index + 1]
            index -= span[1] < cuts[index]
            cut[index][2].append(span)
    return cut


def cut_by_count(spans: Sequence[Span], windows: int) -> list[tuple[int, int, list[Span]]]:
    """Cut into windows of equally many requests in the order of their answers; the remainder joins the last."""
    ordered = sorted(spans, key=lambda span: span[1])
    windows = max(1, min(windows, len(ordered)))
    size = len(ordered) // windows
    cut: list[tuple[int, int, list[Span]]] = []
    start = min(span[0] for span in ordered)
    for i in range(windows):
        part = ordered[i * size : (i + 1) * size if i < windows - 1 else len(ordered)]
        cut.append((start, part[-1][1], part))
        start = part[-1][1]
    return cut


def summarise(level: Level, cut: Sequence[tuple[int, int, Sequence[Span]]]) -> Level:
    """Fill ``level`` with the figures of its windows; windows need not be neighbours in time."""
    windows = tuple(_window(start, end, spans, level.batch_size) for start, end, spans in cut)
    latencies = sorted((span[1] - span[0]) / 1000 for _, _, spans in cut for span in spans)
    duration = sum(end - start for start, end, _ in cut) / 1e9
    level = replace(level, windows=windows, requests=len(latencies), duration_s=duration)
    if not latencies or duration <= 0:
        return level

    def estimate(pooled: float, part: Callable[[Window], float | None]) -> Estimate:
        return section(pooled, [value for value in map(part, windows) if value is not None])

    return replace(
        level,
        throughput=estimate(len(latencies) * level.batch_size / duration, lambda w: w.throughput),
        mean_us=estimate(math.fsum(latencies) / len(latencies), lambda w: w.mean_us),
        p50_us=estimate(percentile(latencies, 50), lambda w: w.p50_us),
        p90_us=estimate(percentile(latencies, 90), lambda w: w.p90_us),
        p95_us=estimate(percentile(latencies, 95), lambda w: w.p95_us),
        p99_us=estimate(percentile(latencies, 99), lambda w: w.p99_us),
    )


def _window(start_ns: int, end_ns: int, spans: Sequence[Span], batch_size: int) -> Window:
    latencies = sorted((span[1] - span[0]) / 1000 for span in spans)
    seconds = (end_ns - start_ns) / 1e9
    shares = [percentile(latencies, p) if latencies else None for p in PERCENTILES]
    return Window(
        start_ns,
        end_ns,
        len(latencies),
        len(latencies) * batch_size / seconds if seconds > 0 else 0.0,
        math.fsum(latencies) / len(latencies) if latencies else None,
        *shares,
    )
