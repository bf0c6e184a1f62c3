"""The points of a rollout where a kill, a lost connection or a full disk is survived; tests go through them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tritonforge.durable import fault_point
from tritonforge.errors import EnvironmentLacks


@contextmanager
def remote(name: str) -> Iterator[None]:
    """Wrap one call that changes a target: there is a point before it and one after it.

    Raises:
        EnvironmentLacks: the connection was lost, on purpose.
    """
    try:
        fault_point(f"rollout.{name}.before")
        yield
        fault_point(f"rollout.{name}.after")
    except ConnectionResetError as error:
        raise lost(str(error)) from None


def lost(found: str) -> EnvironmentLacks:
    """The connection to a target was lost in the middle of something."""
    return EnvironmentLacks(
        "the connection to the target was lost",
        found=found,
        hint="the journal knows how far it came: `deploy --resume` goes on, `deploy` without it undoes that",
    )
