"""Read perf_analyzer's ``--profile-export-file``: when each request was sent and answered.

The file repeats every request's inputs and outputs, which makes it hundreds of megabytes for image models, and BYTES
stand in it raw, so that it need not be UTF-8. It is therefore scanned for its timestamps and never parsed whole.
Source: perf_analyzer ``src/profile_data_exporter.cc`` (order and nesting of the keys); checked on 2.51.0.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.measure.statistics import Span

# Inputs are a flat map and quotes inside strings are escaped, so none of these can occur inside tensor data.
_TOKEN: Final = re.compile(
    rb'\{"experiment":\{"mode":"(?P<mode>\w+)","value":(?P<value>[0-9.eE+-]+)\},"requests":\['
    rb'|\{"timestamp":(?P<sent>\d+),(?:"sequence_id":\d+,)?"request_inputs":\{'
    rb'|"response_timestamps":\[(?P<answers>[\d,]*)\],"response_outputs":\['
    rb'|(?<=[}\[])\],"window_boundaries":\[(?P<windows>[\d,]*)\]\}'
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One load level in an export: ``boundaries`` are its windows' edges; times in nanoseconds since 1970.

    ``unanswered`` counts requests without any response. ``value`` is the concurrency, or the request rate.
    """

    mode: str
    value: float
    spans: tuple[Span, ...]
    unanswered: int
    boundaries: tuple[int, ...]


class EmptyExport(CheckFailed):
    """perf_analyzer wrote no export although it ran: the sign of a NaN or infinity in a tensor."""


def read_export(path: Path) -> tuple[Experiment, ...]:
    """All experiments in ``path``, in the order in which they ran.

    Raises:
        EmptyExport: the file is empty.
        CheckFailed: the file is cut off, or is not of the known form.
    """
    size = path.stat().st_size
    if size == 0:
        raise EmptyExport(
            "perf_analyzer exported no requests: its JSON writer stops at the first NaN or infinity in a tensor",
            place=Place(path),
            hint="give input data without NaN (random bits of a floating-point input have them: use zero or a file), "
            "and look whether the model answers with NaN",
        )
    found: list[Experiment] = []
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        spans: list[Span] = []
        head: tuple[str, float] | None = None
        sent: int | None = None
        unanswered = 0
        for match in _TOKEN.finditer(data):
            kind = match.lastgroup
            if kind == "value" and head is None:
                head = (match["mode"].decode(), float(match["value"]))
            elif kind == "sent" and head is not None and sent is None:
                sent = int(match["sent"])
            elif kind == "answers" and sent is not None:
                if match["answers"]:
                    spans.append((sent, int(match["answers"].rpartition(b",")[2])))
                else:
                    unanswered += 1
                sent = None
            elif kind == "windows" and head is not None and sent is None:
                edges = tuple(int(edge) for edge in match["windows"].split(b",") if edge)
                found.append(Experiment(*head, tuple(spans), unanswered, edges))
                spans, head, unanswered = [], None, 0
            else:
                raise _malformed(path, match.start())
        if head is not None or not found or not data[-200:].rstrip().endswith(b"}"):
            raise _malformed(path, size)
    return tuple(found)


def _malformed(path: Path, offset: int) -> CheckFailed:
    return CheckFailed(
        "perf_analyzer's profile export is cut off or of an unknown form",
        place=Place(path),
        expected="experiments, each with requests and window_boundaries",
        found=f"something else at byte {offset}",
        hint="a full disk or a NaN in a tensor cuts it off; a newer perf_analyzer may have changed the format",
    )
