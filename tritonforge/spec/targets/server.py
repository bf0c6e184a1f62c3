"""``kind: server``: a Triton that somebody else operates."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import Name, RelativePath
from tritonforge.spec.targets.common import TargetCommon


class ServerTarget(TargetCommon):
    """A running Triton in explicit mode whose repository folder can be written from here; changed in place."""

    kind: Literal["server"]
    """A running Triton."""
    connection: Name
    """One of the spec's `connections`."""
    repository: RelativePath
    """Its model repository, as this machine sees it; the folder is tritonforge's alone."""
