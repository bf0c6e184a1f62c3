"""What to measure with perf_analyzer, and the command line that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tritonforge.errors import UsageError
from tritonforge.measure.statistics import MIN_WINDOWS

_OWN_WINDOWS: Final = 3
"""perf_analyzer never stops before three of its windows (``stability_window`` in ``inference_profiler.cc``)."""

_STRETCH: Final = 1.2
"""perf_analyzer runs each time window 1.2 times as long as asked (seen on 2.51.0)."""

_NEVER_UNSTABLE: Final = "1000000"


@dataclass(frozen=True, slots=True)
class PerfTls:
    """Files (PEM) of an encrypted connection; the machine's own authorities are trusted where ``ca`` is None."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class PerfRun:
    """One measurement of one model over some concurrencies.

    By default every level runs for ``windows`` windows of ``measurement_interval_ms``, whatever the results: stopping
    when three windows agree selects the windows that agree. ``measurement_request_count`` makes windows of that many
    requests instead of equal time. ``stability_percentage`` (with ``max_trials`` and ``percentile``) asks for
    perf_analyzer's own rule; a level that it calls unstable then carries no figures.

    ``shapes`` holds dims per input without the batch axis. ``input_data`` is ``zero``, ``random`` or a data file;
    random bits of a floating-point input contain NaN, which perf_analyzer cannot export. ``env`` is added to the
    environment. ``timeout_s`` bounds each of the processes that a level takes. ``memory_limit_mb`` bounds what
    perf_analyzer may hold: it keeps every request's inputs and outputs, about thirty times over; where one process
    would need more, a level is measured by several, each one window. ``headers`` go with every request; they may hold
    secrets, so no text made of this object and nothing kept of perf_analyzer's log shows their values.

    Raises:
        UsageError: values that do not go together.
    """

    program: Path
    model: str
    url: str
    work_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)
    version: int | None = None
    protocol: Literal["grpc", "http"] = "grpc"
    concurrency: tuple[int, ...] = (1,)
    batch_size: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_data: Path | Literal["random", "zero"] = "zero"
    string_length: int | None = None
    measurement_interval_ms: int = 1000
    windows: int = 10
    measurement_request_count: int | None = None
    stability_percentage: float | None = None
    max_trials: int = 10
    percentile: int | None = None
    warmup_request_count: int = 100
    streaming: bool = False
    extra_args: tuple[str, ...] = ()
    timeout_s: float = 600.0
    memory_limit_mb: int = 2048
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: PerfTls | None = None

    def __post_init__(self) -> None:
        levels = self.concurrency
        if not levels or min(levels) < 1 or len(set(levels)) != len(levels):
            raise UsageError("concurrency must be different positive numbers", found=str(levels))
        if self.protocol not in ("grpc", "http"):
            raise UsageError(f"unknown protocol '{self.protocol}'", expected="grpc or http")
        if self.streaming and self.protocol != "grpc":
            raise UsageError("streaming needs the protocol grpc", found=self.protocol)
        if self.stability_percentage is not None and self.measurement_request_count is not None:
            raise UsageError("stability_percentage goes with windows of time, not with measurement_request_count")
        for name, least in (
            ("batch_size", 1),
            ("measurement_interval_ms", 1),
            ("windows", MIN_WINDOWS),
            ("max_trials", _OWN_WINDOWS),
            ("warmup_request_count", 0),
            ("memory_limit_mb", 1),
        ):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}", found=str(getattr(self, name)))
        if self.measurement_request_count is not None and self.measurement_request_count < 1:
            raise UsageError("measurement_request_count must be at least 1")

    def settings(self) -> dict[str, Any]:
        """What influences the figures, as plain data for evidence: no environment (it may hold secrets), no paths."""
        return {
            "model_version": self.version,
            "protocol": self.protocol,
            "concurrency": list(self.concurrency),
            "batch_size": self.batch_size,
            "shapes": {name: list(dims) for name, dims in self.shapes.items()},
            "input_data": self.input_data if isinstance(self.input_data, str) else self.input_data.name,
            "string_length": self.string_length,
            "measurement_interval_ms": self.measurement_interval_ms,
            "windows": self.windows,
            "measurement_request_count": self.measurement_request_count,
            "stability_percentage": self.stability_percentage,
            "max_trials": self.max_trials,
            "percentile": self.percentile,
            "warmup_request_count": self.warmup_request_count,
            "streaming": self.streaming,
            "extra_args": list(self.extra_args),
        }


def command_line(
    run: PerfRun, concurrency: int, folder: Path, *, requests: int | None = None, warmup: bool = True
) -> list[str]:
    """The arguments for one process at one concurrency: for exactly ``requests`` requests, or for the run's windows."""
    command = [str(run.program), "-m", run.model, "-u", run.url, "-i", run.protocol, "-b", str(run.batch_size)]
    if run.version is not None:
        command += ["-x", str(run.version)]
    command += ["--concurrency-range", str(concurrency), "--input-data", str(run.input_data)]
    for name, dims in run.shapes.items():
        command += ["--shape", f"{name}:{','.join(map(str, dims))}"]
    if run.string_length is not None:
        command += ["--string-length", str(run.string_length)]
    if run.streaming:
        command.append("--streaming")
    if run.percentile is not None:
        command += ["--percentile", str(run.percentile)]
    if warmup and run.warmup_request_count:
        # Known to the binary but not in its help (2.51.0); the caller retries without it where it is unknown.
        command += ["--warmup-request-count", str(max(run.warmup_request_count, concurrency))]
    if requests is not None:
        command += ["--request-count", str(requests)]
    elif run.stability_percentage is not None:
        command += ["-p", str(run.measurement_interval_ms), "-r", str(run.max_trials)]
        command += ["-s", f"{run.stability_percentage:g}"]
    else:
        window = math.ceil(run.measurement_interval_ms * run.windows / _OWN_WINDOWS / _STRETCH)
        command += ["-p", str(window), "-r", str(_OWN_WINDOWS), "-s", _NEVER_UNSTABLE]
    command += _secured(run)
    command += ["-f", str(folder / "report.csv"), "--profile-export-file", str(folder / "profile.json")]
    return [*command, *run.extra_args]


def _secured(run: PerfRun) -> list[str]:
    """TLS and headers. perf_analyzer's help says that headers are for HTTP alone; 2.51.0 sends them over gRPC too."""
    options = [part for name, value in run.headers.items() for part in ("-H", f"{name.lower()}:{value}")]
    if run.tls is None:
        return options
    key = run.tls.key or run.tls.cert
    if run.protocol == "grpc":
        files = {
            "--ssl-grpc-root-certifications-file": run.tls.ca,
            "--ssl-grpc-certificate-chain-file": run.tls.cert,
            "--ssl-grpc-private-key-file": key,
        }
        options += ["--ssl-grpc-use-ssl", "true"]
    else:
        files = {
            "--ssl-https-ca-certificates-file": run.tls.ca,
            "--ssl-https-client-certificate-file": run.tls.cert,
            "--ssl-https-private-key-file": key,
        }
        options += ["--ssl-https-verify-peer", "1", "--ssl-https-verify-host", "2"]
    return options + [part for option, file in files.items() if file is not None for part in (option, str(file))]
