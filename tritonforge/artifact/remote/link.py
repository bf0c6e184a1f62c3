"""One build's connection to the team's store: made when it is first needed, and left alone once it disappoints."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tritonforge.artifact.remote.objects import Objects
from tritonforge.artifact.remote.patience import Patience
from tritonforge.errors import ForgeError


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """``name`` is what messages call the store; ``connect`` loads what talks to it.

    ``signing_key`` is the team's, where it has one. Only with ``write`` is anything sent.
    """

    name: str
    connect: Callable[[], Objects]
    timeout_s: float
    write: bool = False
    signing_key: bytes | None = None


class Link:
    """What reading and writing have in common; ``damaged`` are the paths of objects that were refused."""

    def __init__(self, settings: SharedSettings, warn: Callable[[str], None]) -> None:
        self.settings = settings
        self.patience = Patience(settings.timeout_s)
        self.alone = threading.Event()
        self.damaged: set[str] = set()
        self.warnings: list[str] = []
        self._warn = warn
        self._objects: Objects | ForgeError | None = None
        self._connecting = threading.Lock()
        self._leaving = threading.Lock()
        self._on_leaving: list[Callable[[], None]] = []

    def objects(self) -> Objects:
        """The store.

        Raises:
            EnvironmentLacks: a package is absent.
            UsageError: the options are wrong.
        """
        with self._connecting:
            if self._objects is None:
                try:
                    self._objects = self.settings.connect()
                except ForgeError as error:
                    self._objects = error
        if isinstance(self._objects, ForgeError):
            raise self._objects
        return self._objects

    def when_left(self, act: Callable[[], None]) -> None:
        """Have ``act`` done when the store is left alone."""
        self._on_leaving.append(act)

    def leave(self, why: ForgeError | str | None) -> None:
        """Ask nothing more in this build, and say why, once; without ``why`` nothing is said."""
        with self._leaving:
            first = not self.alone.is_set()
            self.alone.set()
        if first:
            if why is not None:
                text = in_words(why) if isinstance(why, ForgeError) else f"{self.settings.name}: {why}"
                self.say(f"{text}; it is left alone for the rest of this build")
            for act in self._on_leaving:
                act()

    def say(self, text: str) -> None:
        """Warn the user."""
        self.warnings.append(text)
        self._warn(text)


def in_words(error: ForgeError) -> str:
    """An error in one line."""
    parts = [part for part in (error.found, error.hint) if part]
    return error.message + (f" ({'; '.join(parts)})" if parts else "")


@dataclass(slots=True)
class Crew:
    """Threads that do what they are given, at most ``most`` at once; they end with the process, whatever they wait for.

    (The threads of ``concurrent.futures`` are waited for when Python ends.)
    """

    name: str
    most: int
    _jobs: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)
    _started: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done; it deals with its own errors."""
        self._jobs.put(job)
        with self._guard:
            if self._started < self.most:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self.name}-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()


READERS: Final = 16
"""Records are small, and their way is long: many are asked for at once."""
FETCHERS: Final = 4
WRITERS: Final = 2
"""Files are large: more at once would only be slower each."""
