"""How long a build bears with a remote store: not longer than its timeout beyond what the store saved it.

Reading: the time in which the machine stood idle because of the store, less what the fetched steps took where they
were made, stays below the timeout. Writing: within every timeout an object arrives, or a megabyte for each second.
What fails to connect is not asked again. The clock is the caller's, so that tests need not wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LEAST_RATE: Final = 1_000_000
"""Bytes a second that a store takes at least; a slower one is left alone."""
MOST_WORTH: Final = 3600.0
"""Seconds; a record that claims that its step took longer counts as this."""


@dataclass(slots=True)
class Transfer:
    """A fetch under way: of ``total`` bytes ``done`` are here; ``worth`` is what its step took elsewhere, in s."""

    total: int
    worth: float
    since: float
    done: int = 0

    def pays(self, now: float) -> bool:
        """Whether, at its rate so far, it ends sooner than the step would."""
        return self.done > 0 and (now - self.since) * self.total <= self.worth * self.done


@dataclass(slots=True)
class Patience:
    """Counts what a remote store costs and saves, all in seconds; ``spent`` says why it is left alone."""

    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    waited: float = 0.0
    saved: float = 0.0
    spent: str | None = None
    _transfers: dict[int, Transfer] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _window: tuple[float, int] | None = None

    def stood_idle(self, seconds: float) -> bool:
        """The machine stood idle because of the store for so long; false when that was too long in all."""
        with self._guard:
            self.waited += seconds
            now = self.clock()
            paying = sum(item.worth for item in self._transfers.values() if item.pays(now))
            if self.spent is None and self.waited > self.timeout_s + self.saved + paying:
                self.spent = f"it was waited for for {self.waited:.0f} s, and saved {self.saved:.0f} s"
            return self.spent is None

    def fetching(self, total: int, worth: float) -> Transfer:
        """A fetch begins."""
        transfer = Transfer(total, min(max(worth, 0.0), MOST_WORTH), self.clock())
        with self._guard:
            self._transfers[id(transfer)] = transfer
        return transfer

    def fetched(self, transfer: Transfer, *, good: bool) -> None:
        """It ended; what was fetched saved its step."""
        with self._guard:
            self._transfers.pop(id(transfer), None)
            if good:
                self.saved += transfer.worth

    def sending(self, moved: int, arrived: int) -> bool:
        """Whether to go on waiting for a store that took so many bytes and objects so far, in all."""
        now = self.clock()
        score = moved + arrived * int(LEAST_RATE * self.timeout_s)
        if self._window is None or score - self._window[1] >= LEAST_RATE * self.timeout_s:
            self._window = (now, score)
        elif now - self._window[0] > self.timeout_s - max(0.0, self.waited - self.saved):
            self.spent = f"it took less than {LEAST_RATE / 1e6:g} MB/s for {now - self._window[0]:.0f} s"
        return self.spent is None
