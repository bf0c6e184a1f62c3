"""Whether the embedded runtime can run on this machine and this interpreter."""

from __future__ import annotations

import platform
import sys
from typing import Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.wheels import MIN_GLIBC, PYTHONS, TRITON_RELEASE

_ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def vendor_image(release: str = TRITON_RELEASE) -> str:
    """NVIDIA's image of a container release (``YY.MM``), as its catalog names them."""
    return f"nvcr.io/nvidia/tritonserver:{release}-py3"


def other_ways(release: str = TRITON_RELEASE) -> str:
    """What to use where the embedded server is of no use; ``release`` is the one that is to serve."""
    return (
        f"use a server of your own instead: --container IMAGE (docker; NVIDIA's is {vendor_image(release)}), "
        "--tritonserver PATH (installed), or --server URL (running)"
    )


OTHER_WAYS: Final = other_ways()
"""For the embedded server's own release."""


def python_version() -> str:
    """This interpreter's minor version, such as ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def architecture() -> str:
    """The architecture whose wheels run here.

    Raises:
        EnvironmentLacks: the system, its C library, the processor or the interpreter is none that the wheels serve.
    """
    if sys.platform != "linux":
        raise _lacks("it is made for Linux", f"this is {platform.system() or sys.platform}")
    found = _ARCHITECTURES.get(platform.machine().lower())
    if found is None:
        raise _lacks("it is made for x86_64 and aarch64", f"this processor is {platform.machine()}")
    library, version = platform.libc_ver()
    if library != "glibc":
        raise _lacks("it needs the GNU C library", f"this system has {library or 'another (musl?)'}")
    if _numbers(version) < MIN_GLIBC:
        raise _lacks(f"it needs glibc {MIN_GLIBC[0]}.{MIN_GLIBC[1]} or newer", f"this system has {version}")
    if sys.implementation.name != "cpython" or python_version() not in PYTHONS:
        raise _lacks(
            f"its Python backend is made for CPython {PYTHONS[0]} to {PYTHONS[-1]}",
            f"this is {platform.python_implementation()} {platform.python_version()}",
        )
    return found


def _lacks(need: str, found: str) -> EnvironmentLacks:
    return EnvironmentLacks(f"the embedded Triton cannot run here: {need}", found=found, hint=OTHER_WAYS)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
