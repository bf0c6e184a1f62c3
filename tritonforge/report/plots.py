"""The plots of a gate and of parity. Every series has a marker of its own besides its colour, every point a tip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tritonforge.measure import Estimate, Level
from tritonforge.report.document import ParityRow
from tritonforge.report.figures import interval, number
from tritonforge.report.frame import Bound, Frame, empty, legend, reference_lines
from tritonforge.report.scale import fit
from tritonforge.report.svg import Child, Drawn, clipped, element, line, marker, picture, width_of, words

PERCENTILES: Final = (50, 90, 95, 99)
MOST_ROWS: Final = 40
"""Rows of the parity plot; beyond it shows the largest differences only."""


def latency(ident: str, levels: Sequence[Level], slo: Mapping[str, Any]) -> Drawn:
    """Latency percentiles with their intervals at each concurrency, against the bounds of the gate. Milliseconds."""
    title = "Latency by requests in flight"
    series = {p: [_ms(getattr(level, f"p{p}_us")) for level in levels] for p in PERCENTILES}
    series = {p: figures for p, figures in series.items() if any(figures)}
    if not series:
        return empty(ident, title)
    bounds = [Bound(value, f"p{p} ≤ {number(value)} ms") for p in PERCENTILES if (value := _bound(slo, f"p{p}_ms"))]
    shown = [edge for figures in series.values() for item in figures if item for edge in (item.value, item.high)]
    frame = Frame(rows=1)
    y = fit([*shown, *(bound.value for bound in bounds)], frame.bottom, frame.top)
    parts: list[Child] = [*frame.axes(y, "milliseconds"), *_concurrencies(frame, levels)]
    slots = _slots(frame, len(levels))
    spread = min(16.0, frame.slot(len(levels)) / (len(series) + 1))
    for index, (percentile, figures) in enumerate(series.items()):
        for x, level, item in zip(slots, levels, figures, strict=True):
            if item is None:
                continue
            at = x + (index - (len(series) - 1) / 2) * spread
            tip = f"p{percentile} with {level.concurrency} in flight: {_said(item, 'ms')}"
            parts += _figure(index, at, item, y, tip)
    parts += reference_lines(frame, bounds, y)
    parts += legend(frame, [f"p{p}" for p in series], note="bars: 95 % intervals")
    told = "; ".join(
        f"p{p} with {level.concurrency} in flight {_said(item, 'ms')}"
        for p, figures in series.items()
        for level, item in zip(levels, figures, strict=True)
        if item is not None
    )
    return picture(ident, frame.width, frame.height, title, told, *parts)


def throughput(ident: str, levels: Sequence[Level], slo: Mapping[str, Any]) -> Drawn:
    """Throughput with its interval at each concurrency, against the bound of the gate. Inferences per second."""
    title = "Throughput by requests in flight"
    figures = [
        level.throughput if level.throughput and math.isfinite(level.throughput.value) else None for level in levels
    ]
    if not any(figures):
        return empty(ident, title)
    least = _bound(slo, "throughput_min")
    bounds = [Bound(least, f"≥ {number(least)} per second")] if least else []
    shown = [edge for item in figures if item for edge in (item.value, item.high)]
    frame = Frame(rows=1)
    y = fit([*shown, least], frame.bottom, frame.top, log=False)
    parts: list[Child] = [*frame.axes(y, "inferences per second"), *_concurrencies(frame, levels)]
    points = [(x, item) for x, item in zip(_slots(frame, len(levels)), figures, strict=True) if item is not None]
    parts.append(_path([(x, y(item.value)) for x, item in points], "series s0"))
    told = []
    for level, x, item in zip(
        [level for level, item in zip(levels, figures, strict=True) if item], *zip(*points, strict=True), strict=True
    ):
        told.append(f"{level.concurrency} in flight: {_said(item, 'inferences per second')}")
        parts += _figure(0, x, item, y, told[-1])
    parts += reference_lines(frame, bounds, y)
    parts += legend(frame, ["throughput"], note="bars: 95 % intervals")
    return picture(ident, frame.width, frame.height, title, "; ".join(told), *parts)


def windows(ident: str, levels: Sequence[Level], slo: Mapping[str, Any]) -> Drawn:
    """The 95th percentile of each window of each level over time: whether the run was steady. Milliseconds, seconds."""
    title = "95th percentile of each window, over the time of its level"
    series: dict[int, list[tuple[float, float]]] = {}
    for level in levels:
        begin = min((window.start_ns for window in level.windows), default=0)
        points = [
            (((window.start_ns + window.end_ns) / 2 - begin) / 1e9, window.p95_us / 1000)
            for window in level.windows
            if window.p95_us is not None and math.isfinite(window.p95_us)
        ]
        if points:
            series[level.concurrency] = points
    if not series:
        return empty(ident, title)
    bound = _bound(slo, "p95_ms")
    bounds = [Bound(bound, f"p95 ≤ {number(bound)} ms")] if bound else []
    frame = Frame(rows=1 + (len(series) - 1) // 6)
    every = [point for points in series.values() for point in points]
    y = fit([*(latency_ms for _, latency_ms in every), bound], frame.bottom, frame.top)
    x = fit([time for time, _ in every], frame.left, frame.right, log=False)
    parts: list[Child] = [*frame.axes(y, "milliseconds"), *frame.numbers_below(x, "seconds since the level began")]
    for index, (concurrency, points) in enumerate(series.items()):
        parts.append(_path([(x(time), y(value)) for time, value in points], f"series s{index % 4}"))
        for time, value in points:
            tip = f"{concurrency} in flight, {number(time)} s: p95 {number(value)} ms"
            parts.append(marker(index, x(time), y(value), f"point s{index % 4}", tip))
    parts += reference_lines(frame, bounds, y)
    parts += legend(frame, [f"{concurrency} in flight" for concurrency in series])
    told = "; ".join(
        f"{concurrency} in flight: {number(min(v for _, v in points))} to {number(max(v for _, v in points))} ms"
        for concurrency, points in series.items()
    )
    return picture(ident, frame.width, frame.height, title, told, *parts)


def parity(ident: str, rows: Sequence[ParityRow]) -> Drawn:
    """The largest absolute difference of each output of each case on a logarithmic axis, each with its tolerance."""
    title = "Largest difference from the source, by case"
    drawable = [row for row in rows if row.max_abs is not None and math.isfinite(row.max_abs)]
    if not drawable:
        return empty(ident, title, "no output of these cases has a difference in figures")
    left_out = max(0, len(drawable) - MOST_ROWS)
    if left_out:
        worst = sorted(range(len(drawable)), key=lambda index: -(drawable[index].max_abs or 0.0))[:MOST_ROWS]
        drawable = [drawable[index] for index in sorted(worst)]
    labels = [clipped(f"{row.case} · {row.output}", 38) for row in drawable]
    left = max(map(width_of, labels)) + 16
    zero, top, pitch = left + 24, 30, 22
    bottom, width = top + pitch * len(drawable), max(640.0, left + 420)
    height = bottom + 44
    x = fit([item for row in drawable for item in (row.max_abs, row.bound) if item], zero + 36, width - 24, log=True)
    parts: list[Child] = [line(zero, top - 6, zero, bottom, "grid"), words("0", zero, bottom + 18, "tick", "middle")]
    for tick in x.ticks:
        parts += [line(x(tick), top - 6, x(tick), bottom, "grid")]
        parts += [words(number(tick, 1), x(tick), bottom + 18, "tick", "middle")]
    parts.append(words("largest absolute difference", (zero + width) / 2, bottom + 36, "axis", "middle"))
    told = []
    for index, (row, label) in enumerate(zip(drawable, labels, strict=True)):
        y, value = top + pitch * (index + 0.5), row.max_abs or 0.0
        at = x(value) if value > 0 else zero
        verdict = "within its tolerance" if row.ok else "outside its tolerance"
        told.append(f"{row.case}, {row.output}: {number(value)}, {verdict}")
        parts += [words(label, left, y + 4, "label", "end"), line(zero, y, at, y, "stem")]
        if row.bound:
            tip = element("title", f"absolute tolerance {number(row.bound)}")
            parts.append(element("line", tip, x1=x(row.bound), y1=y - 8, x2=x(row.bound), y2=y + 8, class_="bound"))
        parts.append(marker(0 if row.ok else 3, at, y, "point s0" if row.ok else "point bad", told[-1]))
    note = "upright strokes: the absolute part of each tolerance"
    if left_out:
        note += f"; the {MOST_ROWS} largest are shown, {left_out} smaller ones are not"
    parts.append(words(note, 0, 14, "axis"))
    return picture(ident, max(width, width_of(note)), height, title, "; ".join(told), *parts)


def _slots(frame: Frame, count: int) -> list[float]:
    return [frame.left + frame.slot(count) * (index + 0.5) for index in range(count)]


def _concurrencies(frame: Frame, levels: Sequence[Level]) -> list[Child]:
    parts: list[Child] = []
    for x, level in zip(_slots(frame, len(levels)), levels, strict=True):
        parts.append(words(str(level.concurrency), x, frame.bottom + 18, "tick", "middle"))
        if level.throughput is None:
            parts.append(words(level.outcome.value, x, (frame.top + frame.bottom) / 2, "tick", "middle"))
    parts.append(words("requests in flight", (frame.left + frame.right) / 2, frame.bottom + 36, "axis", "middle"))
    return parts


def _figure(index: int, x: float, item: Estimate, y: Any, tip: str) -> list[Child]:
    """A point with its interval as a bar with two caps."""
    parts: list[Child] = []
    if item.low is not None and item.high is not None and math.isfinite(item.low) and math.isfinite(item.high):
        low, high = y(item.low), y(item.high)
        parts += [line(x, low, x, high, f"interval s{index % 4}")]
        parts += [line(x - 4, edge, x + 4, edge, f"interval s{index % 4}") for edge in (low, high)]
    parts.append(marker(index, x, y(item.value), f"point s{index % 4}", tip))
    return parts


def _path(points: Sequence[tuple[float, float]], class_: str) -> Drawn:
    return element("polyline", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points), class_=class_)


def _ms(item: Estimate | None) -> Estimate | None:
    if item is None or not math.isfinite(item.value):
        return None
    low, high = (None if edge is None else edge / 1000 for edge in (item.low, item.high))
    return Estimate(item.value / 1000, low, high, item.windows)


def _said(item: Estimate, unit: str) -> str:
    around = "" if item.low is None or item.high is None else f" ({interval(item.low, item.high)})"
    return f"{number(item.value)} {unit}{around}"


def _bound(slo: Mapping[str, Any], name: str) -> float | None:
    value = slo.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
