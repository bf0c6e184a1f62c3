"""Work while it runs: a bar on a terminal; elsewhere one line a step of a build, and nothing for bytes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tritonforge.actions.build import Observer
from tritonforge.cli.output import console, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from tritonforge.build.graph import Graph, Node
    from tritonforge.build.scheduler import NodeResult
    from tritonforge.spec.platform import Platform


class BuildProgress:
    """Gives the observer that draws; nothing is drawn where ``quiet`` (for ``--json``)."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Progress | None = None

    def __enter__(self) -> Observer:
        if self.quiet:
            return Observer()
        if sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
            )

            text = TextColumn("{task.description}")
            self._bar = Progress(
                SpinnerColumn(),
                text,
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console(stderr=True),
            )
            self._bar.start()
        return Drawing(self._bar)

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class Drawing(Observer):
    """Draws into a bar, or says lines where there is none."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._task: Any = None
        self._name = ""
        self._running: dict[str, None] = {}

    def waiting(self, holder: str) -> None:
        self._line(f"waiting for {holder}")

    def platform(self, platform: Platform, graph: Graph) -> None:
        self._name = platform.name
        if self._bar is not None:
            self._task = self._bar.add_task(platform.name, total=len(graph.nodes))

    def started(self, node: Node) -> None:
        self._running[node.id] = None
        self._advance(0)

    def finished(self, result: NodeResult) -> None:
        self._running.pop(result.node.id, None)
        if result.status == "built":
            self._line(f"  built {result.node.id} in {result.seconds:.1f} s ({'; '.join(result.reasons)})")
        elif result.status == "fetched":
            self._line(f"  fetched {result.node.id}")
        elif result.status == "failed":
            self._line(f"  FAILED {result.node.id}")
        self._advance(1)

    def warning(self, text: str) -> None:
        self._line(f"warning: {text}")

    def sending(self, steps: int, size: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._name} sending {steps} steps, {size / 1e6:.1f} MB")

    def _advance(self, steps: int) -> None:
        if self._bar is not None:
            what = f"{self._name} {', '.join(self._running)}"[:60]
            self._bar.update(self._task, advance=steps, description=what)

    def _line(self, text: str) -> None:
        if self._bar is None:
            say(text)
        else:
            self._bar.console.print(text, markup=False)


@contextlib.contextmanager
def bytes_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what is to be told how many bytes of how many are done."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
