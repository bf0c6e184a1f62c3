"""One meaning of being told to stop: SIGTERM ends a command the way Ctrl-C does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_AGAIN_S: Final = 0.02
_LONGEST_S: Final = 10.0


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM, so that what was started ends with it. Only the main thread can.

    One that comes while a module is imported waits for the end of that, for ten seconds at most: an extension module
    that is interrupted in its initialisation may abort the process (nanobind's do), or stay half imported.
    A SIGINT that whoever started this process had it ignore (``nohup``, a script's ``&``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread() or isinstance(signal.getsignal(signal.SIGTERM), _Stop):
        yield
        return
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    for number in (signal.SIGINT, signal.SIGTERM):
        if before[number] is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, stop)
    try:
        yield
    finally:
        stop.cancel()
        for number, handler in before.items():
            if handler is not None:  # None is one that Python did not set, and cannot
                signal.signal(number, handler)


class _Stop:
    """Handles a signal by KeyboardInterrupt, now or when the import that is under way has ended."""

    def __init__(self) -> None:
        self._latest: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        latest = self._latest or now + _LONGEST_S
        if _imports(frame) and now < latest:
            self._latest = latest
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            return
        self.cancel()
        raise KeyboardInterrupt

    def cancel(self) -> None:
        """Let go of a signal that waits."""
        if self._latest is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._latest = None


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where ``frame`` is the innermost call."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
