"""The embedded runtime: a real Triton server taken from a pinned wheel, and the backends that stand in on it.

May import only ``errors``, ``durable`` and the modules of ``triton``.
"""

from tritonforge.artifact.store import default_home
from tritonforge.triton.embedded.install import find, install
from tritonforge.triton.embedded.runtime import Runtime
from tritonforge.triton.embedded.wheels import WHEELS, Wheel, WheelFile

__all__ = ["WHEELS", "Runtime", "Wheel", "WheelFile", "default_home", "find", "install"]
