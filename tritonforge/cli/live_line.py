"""What a long command is doing: one line that changes on a terminal, one line a step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tritonforge.cli.output import console, say


@contextmanager
def live_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yields what takes each message; nothing is shown where ``quiet``."""
    if quiet:
        yield lambda text: None
        return
    stream = console(stderr=True)
    if not stream.is_terminal:
        yield say
        return
    with stream.status("") as status:

        def show(text: str) -> None:
            status.update(text)

        yield show
