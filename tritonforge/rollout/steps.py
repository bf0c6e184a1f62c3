"""Run the steps of a rollout in order, each noted in the journal before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tritonforge.errors import ForgeError
from tritonforge.rollout.journal import Journal


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it does can be done again from its beginning. Its result goes into the journal."""

    name: str
    words: str
    """What is shown while it runs."""
    do: Callable[[], Mapping[str, Any] | None]


def run_steps(
    steps: Sequence[Step],
    journal: Journal,
    done: Mapping[str, Any],
    progress: Callable[[str], None],
) -> None:
    """Run what is not done yet.

    Raises:
        ForgeError: a step failed; the journal says which and why, unless it cannot be written just then.
    """
    for step in steps:
        if step.name in done:
            continue
        progress(step.words)
        journal.add("intend", step=step.name)
        try:
            result = step.do()
        except ForgeError as error:
            with suppress(ForgeError):
                journal.add("failed", step=step.name, error=error.message, code=int(error.exit_code))
            raise
        journal.add("done", step=step.name, result=dict(result or {}))
