"""SIGINT and SIGTERM end a command at once, but never in the middle of an import."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STOPS = [signal.SIGINT, signal.SIGTERM]

PRELUDE = """
import signal, sys, time
from tritonforge import interruption
from tritonforge.interruption import interruptible
def told():
    print("ready", flush=True)
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        time.sleep(0.01)
"""


def run(
    folder: Path, body: str, number: signal.Signals, *, modules: dict[str, str] | None = None, ignored: bool = False
) -> tuple[int, list[str], str]:
    """The exit code, lines and errors of a program that is sent ``number`` once it said "ready"."""
    for name, text in (modules or {}).items():
        (folder / f"{name}.py").write_text(text)
    program = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + body],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(number, signal.SIG_IGN)) if ignored else None,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(number)
    out, err = program.communicate(timeout=60)
    return program.returncode, out.splitlines(), err


@pytest.mark.parametrize("number", STOPS)
def test_what_runs_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    body = """
try:
    with interruptible():
        told()
        print("went on")
except KeyboardInterrupt:
    print("stopped")
"""
    assert run(tmp_path, body, number) == (0, ["stopped"], "")


@pytest.mark.parametrize("number", STOPS)
def test_an_import_is_not_cut_in_two(tmp_path: Path, number: signal.Signals) -> None:
    body = """
sys.told = told
try:
    with interruptible():
        with interruptible():  # an action within a command
            import outer
            time.sleep(30)
            print("went on")
except KeyboardInterrupt:
    print("stopped", "outer" in sys.modules, signal.getitimer(signal.ITIMER_REAL)[0])
print(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    modules = {"outer": "import inner", "inner": "import sys\nsys.told()\nprint('imported')"}
    assert run(tmp_path, body, number, modules=modules) == (
        0,
        ["imported", "stopped True 0.0", "True True"],
        "",
    )


def test_an_import_that_does_not_end_is_cut(tmp_path: Path) -> None:
    body = """
interruption._LONGEST_S = 0.1
sys.told = told
try:
    with interruptible():
        import hangs
except KeyboardInterrupt:
    print("stopped", "hangs" in sys.modules)
"""
    modules = {"hangs": "import sys\nsys.told()\nprint('imported')"}
    assert run(tmp_path, body, signal.SIGINT, modules=modules) == (0, ["stopped False"], "")


def test_what_ends_with_the_import_has_not_been_interrupted(tmp_path: Path) -> None:
    body = """
with interruptible():
    import last
told()
print("went on")
"""
    modules = {"last": "import signal\nsignal.raise_signal(signal.SIGINT)"}
    assert run(tmp_path, body, signal.SIGWINCH, modules=modules) == (0, ["went on"], "")


def test_who_ignores_ctrl_c_goes_on_ignoring_it(tmp_path: Path) -> None:
    body = """
with interruptible():
    told()
    print("went on")
"""
    assert run(tmp_path, body, signal.SIGINT, ignored=True) == (0, ["went on"], "")
