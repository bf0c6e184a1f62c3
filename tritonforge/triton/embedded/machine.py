"""Whether the embedded runtime can run on this machine and this interpreter."""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path
from typing import Final

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.wheels import MIN_GLIBC, PYTHONS

OTHER_WAYS: Final = (
    "use a server of your own instead: --container IMAGE (docker), --tritonserver PATH (installed), "
    "or --server URL (running)"
)
_ARCHITECTURES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


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


def interpreter_library() -> Path | None:
    """The shared ``libpython`` of this interpreter that the stub embeds; None where the runtime brings its own.

    Raises:
        EnvironmentLacks: this interpreter was built without one.
    """
    # The 3.13 stub is linked to a libpython inside the wheel; the older ones look for the interpreter's own.
    if python_version() == "3.13":
        return None
    name = f"libpython{python_version()}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", "/usr/local/lib", "/usr/lib"]
    folders.append(f"/usr/lib/{platform.machine()}-linux-gnu")
    for folder in folders:
        if folder and (Path(folder) / name).exists():
            return Path(folder) / name
    raise _lacks(f"its Python backend needs {name}", f"this interpreter ({sys.executable}) has none")


def _lacks(need: str, found: str) -> EnvironmentLacks:
    return EnvironmentLacks(f"the embedded Triton cannot run here: {need}", found=found, hint=OTHER_WAYS)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
