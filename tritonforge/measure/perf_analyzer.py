"""Measure a served model with perf_analyzer, and take the statistics from its request timestamps.

Neither its exit code nor its summary is trusted. It exits 0 when a sweep turned unstable half-way; with
``--request-count`` its throughput counts the idle rest of a one-second poll, and it fails where the requests are over
before it has read the server's counters; it writes an empty export after a NaN. Every level therefore runs in
processes of its own, results are read from their files, and a level without results says why.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.hiding import hide
from tritonforge.measure.csv_report import parse_csv
from tritonforge.measure.diagnosis import client_limited, diagnose, ended_too_soon, knows_no_warmup, setup_error
from tritonforge.measure.export import Experiment, read_export
from tritonforge.measure.level import Level, Outcome, Reported
from tritonforge.measure.perf_run import PerfRun, command_line
from tritonforge.measure.process import Ended, run_program, tail
from tritonforge.measure.statistics import Span, cut_by_count, cut_by_time, summarise

MEMORY_PER_EXPORTED_BYTE: Final = 30
"""perf_analyzer's memory over its export's size: 14 measured for FP32 zeros, up to 28 for one-digit integers."""

_PROBE_REQUESTS: Final = 8

_TRIES: Final = 4
"""How often requests are sent that are over too soon."""

_LARGEST_PROBE: Final = 512
"""A probe grows fourfold each time, up to this: all that it sends is held in memory."""

_PROBE_S: Final = 120.0
"""How long a probe may take before it is begun anew."""


@dataclass(frozen=True, slots=True)
class PerfResult:
    """The outcome of a run: one level for every concurrency asked for, in that order; times are UTC, ISO 8601."""

    levels: tuple[Level, ...]
    program_version: str
    started: str
    ended: str
    notes: tuple[str, ...] = ()

    def level(self, concurrency: int) -> Level:
        """The level of ``concurrency``.

        Raises:
            CheckFailed: it was not asked for.
        """
        for level in self.levels:
            if level.concurrency == concurrency:
                return level
        raise CheckFailed(
            f"concurrency {concurrency} was not measured", found=str([x.concurrency for x in self.levels])
        )


@dataclass(frozen=True, slots=True)
class _Process:
    """One perf_analyzer process that ended: its experiment, or none."""

    ended: Ended
    log: str
    log_tail: tuple[str, ...]
    experiment: Experiment | None
    export_bytes: int
    reported: Reported | None


def run(perf_run: PerfRun, progress: Callable[[str], None] | None = None) -> PerfResult:
    """Measure every level; ``progress`` is told in words what happens.

    A level whose requests failed, which perf_analyzer calls unstable or which ran out of time has that outcome, a
    reason and the end of its log, and no figures. After a timeout the levels that follow are not tried.

    Raises:
        EnvironmentLacks: no program, no library, no server, or too little memory for one window.
        CheckFailed: the model cannot be called as asked, or the export is unusable (a NaN in a tensor).
        Interrupted: SIGINT; perf_analyzer's process group has been ended.
    """
    say = progress or (lambda _: None)
    program_version = version(perf_run.program, perf_run.env)
    perf_run.work_dir.mkdir(parents=True, exist_ok=True)
    started = _now()
    levels: list[Level] = []
    notes: list[str] = []
    for concurrency in perf_run.concurrency:
        if levels and levels[-1].outcome is Outcome.TIMEOUT:
            skipped = f"not tried: concurrency {levels[-1].concurrency} ran out of time"
            levels.append(Level(concurrency, perf_run.batch_size, Outcome.TIMEOUT, reason=skipped))
            continue
        say(f"concurrency {concurrency}: warming up")
        level = _measure_level(perf_run, concurrency, say, notes)
        if level.outcome is Outcome.MISSING and not levels:
            raise setup_error(level.log_tail)
        levels.append(level)
        say(f"concurrency {concurrency}: {_in_words(level)}")
    return PerfResult(tuple(levels), program_version, started, _now(), tuple(dict.fromkeys(notes)))


def version(program: Path, env: Mapping[str, str] | None = None) -> str:
    """The version that perf_analyzer gives of itself, such as ``2.51.0``.

    Raises:
        EnvironmentLacks: it does not start, or is something else.
    """
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        ended = run_program([str(program), "--version"], env=env or {}, folder=Path(name), log=log, timeout_s=30)
        text = log.read_text(errors="replace")
        found = re.search(r"Perf Analyzer Version (\S+)", text)
        if found is None:
            raise (
                setup_error(tail(log))
                if "shared libraries" in text
                else EnvironmentLacks(
                    f"{program} is no perf_analyzer",
                    expected="'Perf Analyzer Version …' for --version",
                    found=text.strip()[:120] or f"exit code {ended.code} and no output",
                    hint="some package indexes give an empty stub instead of the binary: check the file",
                )
            )
    return found[1]


def _measure_level(perf_run: PerfRun, concurrency: int, say: Callable[[str], None], notes: list[str]) -> Level:
    empty = Level(concurrency, perf_run.batch_size, Outcome.MISSING)
    warmup = True
    probe_count = max(_PROBE_REQUESTS, concurrency)
    probe = _probe(perf_run, concurrency, probe_count, warmup, say)
    if probe.experiment is None and knows_no_warmup(probe.log):
        warmup = False
        notes.append("this perf_analyzer has no --warmup-request-count: a short run before each level stands in for it")
        probe_count = max(probe_count, perf_run.warmup_request_count)
        probe = _probe(perf_run, concurrency, probe_count, warmup, say)
    if probe.experiment is None:
        return _without_figures(empty, probe, perf_run)

    fits, rate = _capacity(perf_run, probe)
    wanted = perf_run.measurement_request_count
    expected = (wanted or rate * perf_run.measurement_interval_ms / 1000) * perf_run.windows
    if perf_run.stability_percentage is not None or expected <= fits:
        say(f"concurrency {concurrency}: measuring")
        if wanted is None:
            process = _process(perf_run, concurrency, "run", None, warmup)
        else:
            process = _counted(perf_run, concurrency, "run", max(wanted * perf_run.windows, concurrency), warmup, say)
        if process.experiment is None:
            return _without_figures(empty, process, perf_run)
        return _measured(empty, [process], _cut(perf_run, process.experiment))

    size = min(fits, max(1, round(expected / perf_run.windows)))
    if size < 2 * concurrency:
        raise EnvironmentLacks(
            f"perf_analyzer would need over {perf_run.memory_limit_mb} MB for a window at concurrency {concurrency}",
            found=f"about {_megabytes_per_request(probe):.0f} MB a request: it keeps all inputs and outputs",
            hint="raise memory_limit_mb, send smaller inputs, or use --shared-memory system on one machine",
        )
    notes.append(
        f"concurrency {concurrency}: {perf_run.windows} processes of {size} requests, each one window, for memory"
    )
    processes: list[_Process] = []
    for index in range(perf_run.windows):
        say(f"concurrency {concurrency}: window {index + 1} of {perf_run.windows}")
        process = _counted(perf_run, concurrency, f"run-{index}", max(size, concurrency), warmup, say)
        if process.experiment is None:
            return _without_figures(empty, process, perf_run)
        processes.append(process)
    cut = [part for item in processes if item.experiment for part in cut_by_count(item.experiment.spans, 1)]
    return _measured(empty, processes, cut)


def _counted(
    perf_run: PerfRun,
    concurrency: int,
    name: str,
    requests: int,
    warmup: bool,
    say: Callable[[str], None],
    growth: int = 1,
) -> _Process:
    """A process of ``requests`` requests, again (``growth`` times as many each time) where they were over too soon."""
    for attempt in range(_TRIES):
        if attempt:
            requests = max(requests, min(requests * growth, _LARGEST_PROBE))
            say(f"concurrency {concurrency}: again, {requests} requests: those before were over too soon")
        process = _process(perf_run, concurrency, name, requests, warmup)
        if process.experiment is not None or not ended_too_soon(process.log):
            break
    return process


def _probe(perf_run: PerfRun, concurrency: int, requests: int, warmup: bool, say: Callable[[str], None]) -> _Process:
    """A few requests, which say how many fit into a process.

    Now and then perf_analyzer does not end after so few, all of them answered and none of its threads at work (seen
    with 2.51 at concurrency 16). One that takes long is ended and begun anew, and may then take all the time there is.
    """
    if perf_run.timeout_s > _PROBE_S:
        shorter = replace(perf_run, timeout_s=_PROBE_S)
        probe = _counted(shorter, concurrency, "probe", requests, warmup, say, growth=4)
        if not probe.ended.timed_out:
            return probe
        say(f"concurrency {concurrency}: again: perf_analyzer did not end within {_PROBE_S:g} s")
    return _counted(perf_run, concurrency, "probe", requests, warmup, say, growth=4)


def _process(perf_run: PerfRun, concurrency: int, name: str, requests: int | None, warmup: bool) -> _Process:
    folder = perf_run.work_dir.absolute() / f"concurrency-{concurrency}" / name
    shutil.rmtree(folder, ignore_errors=True)  # perf_analyzer refuses an export file that exists
    folder.mkdir(parents=True)
    log = folder / "perf_analyzer.log"
    command = command_line(perf_run, concurrency, folder, requests=requests, warmup=warmup)
    ended = run_program(command, env=perf_run.env, folder=folder, log=log, timeout_s=perf_run.timeout_s)
    text = hide(log.read_text(errors="replace"), perf_run.headers)
    if perf_run.headers:
        log.write_text(text)  # the log may repeat them
    export, report = folder / "profile.json", folder / "report.csv"
    experiment: Experiment | None = None
    reported: dict[int, Reported] = {}
    size = 0
    # Failed requests make whatever was written before them worthless; so does a process that had to be killed.
    if not ended.timed_out and diagnose(text).outcome is Outcome.MISSING and export.exists():
        size = export.stat().st_size
        found = [item for item in read_export(export) if item.mode == "concurrency" and item.value == concurrency]
        experiment = found[0] if len(found) == 1 and found[0].spans else None
        if size > 64 << 20:
            export.unlink()  # the timestamps are out of it; hundreds of megabytes of tensors are nobody's evidence
        with contextlib.suppress(OSError, CheckFailed):
            reported = parse_csv(report.read_text(errors="replace"))
    return _Process(ended, text, tail(log), experiment, size, reported.get(concurrency))


def _capacity(perf_run: PerfRun, probe: _Process) -> tuple[int, float]:
    """How many requests one process may hold, and a generous guess of the requests/s."""
    assert probe.experiment is not None
    spans = probe.experiment.spans
    seconds = max(1e-6, (max(end for _, end in spans) - min(start for start, _ in spans)) / 1e9)
    fits = int(perf_run.memory_limit_mb / _megabytes_per_request(probe))
    return fits, 1.5 * len(spans) / seconds


def _megabytes_per_request(probe: _Process) -> float:
    assert probe.experiment is not None
    return probe.export_bytes / len(probe.experiment.spans) * MEMORY_PER_EXPORTED_BYTE / 1e6


def _cut(perf_run: PerfRun, experiment: Experiment) -> list[tuple[int, int, list[Span]]]:
    if perf_run.measurement_request_count is not None:
        return cut_by_count(experiment.spans, perf_run.windows)
    edges = experiment.boundaries
    if len(edges) < 2 or edges[-1] <= edges[0]:
        raise CheckFailed("perf_analyzer's export has no window boundaries", found=str(edges))
    # perf_analyzer's own windows are three and chosen by its stability rule; ours are as many as were asked for.
    return cut_by_time(experiment.spans, edges[0], edges[-1], perf_run.windows)


def _measured(empty: Level, processes: list[_Process], cut: list[tuple[int, int, list[Span]]]) -> Level:
    level = replace(
        empty,
        outcome=Outcome.MEASURED,
        errors=sum(item.experiment.unanswered for item in processes if item.experiment),
        reported=processes[0].reported if len(processes) == 1 else None,
        client_limited=any(client_limited(item.log) for item in processes),
    )
    return summarise(level, cut)


def _without_figures(empty: Level, process: _Process, perf_run: PerfRun) -> Level:
    if process.ended.timed_out:
        reason = f"perf_analyzer did not end within {perf_run.timeout_s:g} s"
        return replace(empty, outcome=Outcome.TIMEOUT, reason=reason, log_tail=process.log_tail)
    why = diagnose(process.log)
    reason = why.reason if why.outcome is not Outcome.MISSING else f"{why.reason} (exit code {process.ended.code})"
    return replace(empty, outcome=why.outcome, reason=reason, errors=why.errors, log_tail=process.log_tail)


def _in_words(level: Level) -> str:
    if level.outcome is not Outcome.MEASURED or level.throughput is None or level.p99_us is None:
        return f"{level.outcome.value}: {level.reason or 'no request was answered'}"
    return f"{level.throughput.value:.1f} inferences/s, p99 {level.p99_us.value / 1000:.2f} ms"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
