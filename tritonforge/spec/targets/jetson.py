"""``kind: jetson``: a Jetson over SSH."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import RelativePath, Strict
from tritonforge.spec.targets.common import SlotTarget
from tritonforge.spec.targets.container import ContainerSpec


class SshSpec(Strict):
    """How a machine is reached over SSH, beside what the user's own SSH configuration says."""

    identity: RelativePath | None = None
    """The private key's file."""
    config: RelativePath | None = None
    """Another configuration file of ssh."""
    known_hosts: RelativePath | None = None
    """Another file of known hosts."""
    connect_timeout_s: int = 15
    """Give up connecting after this long."""


class JetsonTarget(SlotTarget, ContainerSpec):
    """A Jetson whose Docker engine is reached over SSH. Image and run flags follow from its JetPack."""

    kind: Literal["jetson"]
    """A Jetson."""
    address: str
    """`user@host` or `user@host:port`, as for ssh."""
    ssh: SshSpec = SshSpec()
    """How it is reached."""
    board_root: RelativePath | None = None
    """Read the board's files below this folder there, not below `/`."""
