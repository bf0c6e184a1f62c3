"""The shared ``libpython`` that the server's Python backend embeds.

Debian and Ubuntu build ``python3`` without one and keep it in a package of its own (``libpython3.11``), which a fresh
machine need not have. It is then fetched by apt, which checks its signature, and unpacked beside the runtime: that
takes neither root nor a change of the system.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.machine import OTHER_WAYS, python_version


def interpreter_library(kept: Path, searched: Sequence[Path] | None = None) -> Path | None:
    """The ``libpython`` of this interpreter: the system's, else one below ``kept``; None where none is needed.

    Raises:
        EnvironmentLacks: there is none; the message names the package that has it.
    """
    # The 3.13 stub is linked to a libpython inside the wheel; the older ones look for the interpreter's own.
    if python_version() == "3.13":
        return None
    name = f"libpython{python_version()}.so.1.0"
    for folder in [*(_system_folders() if searched is None else searched), _folder(kept)]:
        if (folder / name).exists():
            return folder / name
    raise EnvironmentLacks(
        f"the embedded Triton cannot run here: its Python backend needs {name}",
        found=f"this interpreter ({sys.executable}) has none",
        hint=f"install it (Debian, Ubuntu: apt install libpython{python_version()}), or {OTHER_WAYS}",
    )


def ensure_library(
    kept: Path, *, offline: bool, say: Callable[[str], None], searched: Sequence[Path] | None = None
) -> Path | None:
    """As :func:`interpreter_library`, but where there is none it is fetched by apt and kept below ``kept``."""
    try:
        return interpreter_library(kept, searched)
    except EnvironmentLacks:
        if offline or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise
    _fetch(kept, say)
    return interpreter_library(kept, searched)


def _folder(kept: Path) -> Path:
    return kept / f"libpython-{platform.python_version()}"


def _system_folders() -> list[Path]:
    configured = sysconfig.get_config_var("LIBDIR")
    machine = f"/usr/lib/{platform.machine()}-linux-gnu"
    named = [configured, f"{sys.base_prefix}/lib", "/usr/local/lib", "/usr/lib", machine]
    return [Path(folder) for folder in named if folder]


def _fetch(kept: Path, say: Callable[[str], None]) -> None:
    package = f"libpython{python_version()}"
    say(f"fetching the package {package} by apt (nothing is installed in the system)")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".libpython.", dir=kept) as name:
        work = Path(name)
        # apt drops its privileges for downloads where it can: the folder must let it in.
        work.chmod(0o755)
        fetched = subprocess.run(
            ["apt-get", "download", package], cwd=work, capture_output=True, text=True, check=False
        )
        archives = list(work.glob("*.deb"))
        if fetched.returncode != 0 or not archives:
            return
        unpacked = subprocess.run(["dpkg-deb", "-x", archives[0], work / "tree"], capture_output=True, check=False)
        found = sorted((work / "tree").rglob(f"{package}.so.1.0"))
        if unpacked.returncode == 0 and found:
            staged = work / "kept"
            staged.mkdir()
            shutil.copyfile(found[0], staged / found[0].name)
            if not _folder(kept).exists():
                staged.rename(_folder(kept))
