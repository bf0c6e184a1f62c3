"""Programs that outlive the command that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tritonforge.rollout.processes import Detached, is_alive, start_detached, started_at, stop_detached

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"


def run(text: str, log: Path) -> Detached:
    return start_detached([sys.executable, "-c", text], log, {"EXTRA": "yes"}, log.parent)


def until_said(log: Path, word: str) -> None:
    ends = time.monotonic() + 30
    while word not in log.read_text():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_it_has_its_log_its_environment_and_its_own_session(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier one")
    unit = run("import os; print(os.environ['EXTRA'], os.getcwd(), flush=True); input()", log)
    until_said(log, "yes")
    assert log.read_text().split()[:2] == ["yes", str(tmp_path)]
    stop_detached(unit, 5)
    assert not is_alive(unit)


def test_it_outlives_who_started_it(tmp_path: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from tritonforge.rollout.processes import start_detached\n"
        "folder = Path(sys.argv[1])\n"
        "unit = start_detached([sys.executable, '-c', 'import time; time.sleep(60)'], folder / 'log', {}, folder)\n"
        "print(unit.pid, unit.started)"
    )
    command = [sys.executable, "-c", starter, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    unit = Detached(int(said[0]), said[1])
    assert is_alive(unit)
    assert os.getsid(unit.pid) == unit.pid
    stop_detached(unit, 5)
    assert not is_alive(unit)


def test_what_does_not_listen_is_killed_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    unit = run(PARENT.format(child=STUBBORN), log)
    until_said(log, "on")
    began = time.monotonic()
    stop_detached(unit, 0.3)
    assert time.monotonic() - began < 10
    ends = time.monotonic() + 10
    while any(_group(entry) == unit.pid for entry in os.listdir("/proc") if entry.isdigit()):
        assert time.monotonic() < ends
        time.sleep(0.05)


def _group(pid: str) -> int | None:
    try:
        state, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0:3:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(group)


def test_stopping_what_has_ended_is_nothing(tmp_path: Path) -> None:
    unit = run("pass", tmp_path / "log")
    ends = time.monotonic() + 10
    while is_alive(unit) and time.monotonic() < ends:
        time.sleep(0.02)
    stop_detached(unit, 5)
    stop_detached(unit, 5)


def test_a_later_process_with_the_same_number_is_another() -> None:
    assert started_at(os.getpid()) is not None
    assert is_alive(Detached(os.getpid(), str(started_at(os.getpid()))))
    assert not is_alive(Detached(os.getpid(), "1"))


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(child.pid) is None
    child.wait()


def test_there_is_no_such_process() -> None:
    assert started_at(2**22 + 1) is None


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_one_that_listens_ends_within_its_grace(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    unit = run("import time; print('on', flush=True); time.sleep(60)", log)
    until_said(log, "on")
    began = time.monotonic()
    stop_detached(unit, 30)
    assert time.monotonic() - began < 20
