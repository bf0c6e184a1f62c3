"""``kind: embedded``: the embedded Triton as a service of this machine, without Docker."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import RelativePath
from tritonforge.spec.targets.common import SlotTarget


class EmbeddedTarget(SlotTarget):
    """The embedded Triton on this machine. Two slots need the program `haproxy` (Debian: `apt install haproxy`)."""

    kind: Literal["embedded"]
    """The embedded Triton on this machine."""
    folder: RelativePath | None = None
    """Where its state is; in tritonforge's home when absent."""
