"""Shared by the tests of measuring: captured files, and a fake perf_analyzer (no load, no server; a Python script)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"

_FAKE = """#!{python}
# A FAKE perf_analyzer: writes the files of a run that never happened. FAKE chooses how it behaves.
import json, os, pathlib, subprocess, sys, time
args, how = sys.argv[1:], os.environ.get("FAKE", "")
if args == ["--version"]:
    print("Perf Analyzer Version 9.9.9 (commit fake)"); sys.exit(0)
def option(name, default=None):
    return args[args.index(name) + 1] if name in args else default
level, export = int(option("--concurrency-range")), pathlib.Path(option("--profile-export-file"))
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as log:
    log.write(json.dumps(args) + "\\n")
if how == "no-warmup" and "--warmup-request-count" in args:
    print(f"{{sys.argv[0]}}: unrecognized option '--warmup-request-count'\\nUsage: fake"); sys.exit(99)
if how.startswith("log:") and (len(how.split(":")) < 3 or level == int(how.split(":")[2])):
    print(pathlib.Path(how.split(":")[1]).read_text()); sys.exit(99)
if how.startswith("too-soon:") and int(option("--request-count", 1 << 30)) < int(how.split(":")[1]):
    print(pathlib.Path(how.split(":")[2]).read_text()); sys.exit(99)
if how == "hang" or (how == "hang-once" and not (here / "pids").exists()):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (here / "pids").write_text(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(60)
if how == "silent":
    sys.exit(0)
if how == "empty":
    export.write_text(""); sys.exit(0)
count = int(option("--request-count", 3000))
start, step = 1_700_000_000_000_000_000, 1_000_000
pad = "0" * int(os.environ.get("FAKE_PAD", "0"))
requests = [{{"timestamp": start + i * step, "request_inputs": {{"IN": pad}},
             "response_timestamps": [start + i * step + 500_000 + (i % 100) * 1000], "response_outputs": [{{}}]}}
            for i in range(count)]
value = level + 1 if how == "wrong-level" else level
export.write_text(json.dumps({{"experiments": [{{"experiment": {{"mode": "concurrency", "value": value}},
    "requests": requests, "window_boundaries": [start, start + count * step]}}], "version": "9.9.9",
    "service_kind": "triton", "endpoint": ""}}, separators=(",", ":")))
if how == "slow-client":
    print("[WARNING] Perf Analyzer is not able to keep up with the desired load. The results may not be accurate.")
sys.exit(0)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """The path of a fake perf_analyzer; its calls stand in ``calls`` beside it."""
    folder = tmp_path / "fake"
    folder.mkdir()
    program = folder / "perf_analyzer"
    program.write_text(_FAKE.format(python=sys.executable))
    program.chmod(0o755)
    return program


def alive(pid: int, patience: float = 10.0) -> bool:
    """Whether a process still runs after a moment: a killed grandchild ends when the system gets to it.

    One that has ended and only waits to be reaped (by init, whose child it became) does not run.
    """
    deadline = time.monotonic() + patience
    while _runs(pid):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
