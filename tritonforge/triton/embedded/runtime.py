"""An installed embedded runtime: where its parts are and how its programs are started."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.libpython import interpreter_library
from tritonforge.triton.embedded.wheels import TRITON_RELEASE, TRITON_VERSION


@dataclass(frozen=True, slots=True)
class Runtime:
    """The folder of one runtime; it is made whole by ``install`` and never changed afterwards."""

    root: Path
    python: str
    """The minor version of CPython that its Python backend runs, such as ``3.11``."""
    triton_version: str = TRITON_VERSION
    release: str = TRITON_RELEASE

    @property
    def tritonserver(self) -> Path:
        """The server's program."""
        return self.root / "bin" / "tritonserver"

    @property
    def backend_directory(self) -> Path:
        """The vendor's backends as unpacked (``python`` alone); the stand-ins join them at each start."""
        return self.root / "backends"

    @property
    def cache_directory(self) -> Path:
        """The response caches: ``local``."""
        return self.root / "caches"

    @property
    def perf_analyzer(self) -> Path:
        """The load generator's program; start it with :meth:`perf_env`."""
        return self.root / "perf" / "perf_analyzer"

    @property
    def licences(self) -> Path:
        """The licence texts of what is inside."""
        return self.root / "licenses"

    def env(self) -> dict[str, str]:
        """What the server's environment needs beyond the present one.

        The Python backend's stub embeds ``libpython`` and takes its packages from the first ``python3`` on ``PATH``:
        this interpreter's folder comes first, so models see the packages that tritonforge sees.

        Raises:
            EnvironmentLacks: this interpreter has no ``python3`` beside it, or no shared library to embed.
        """
        folder = Path(sys.executable).parent
        if not (folder / "python3").exists():
            raise EnvironmentLacks(
                f"there is no python3 beside {sys.executable}: the server's Python backend would take another one",
                hint="run tritonforge from a virtual environment",
            )
        library = interpreter_library(self.root.parent)
        libraries = [str(self.root / "lib")]
        if library is not None:
            libraries.append(str(library.parent))
        return {
            "LD_LIBRARY_PATH": _join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
            "PATH": _join([str(folder), os.environ.get("PATH", os.defpath)]),
        }

    def perf_env(self) -> dict[str, str]:
        """What ``perf_analyzer``'s environment needs beyond the present one."""
        own = str(self.root / "perf" / "lib")
        return {"LD_LIBRARY_PATH": _join([own, os.environ.get("LD_LIBRARY_PATH", "")])}


def _join(parts: list[str]) -> str:
    # An empty entry would mean the working folder to the loader.
    return os.pathsep.join(part for part in parts if part)
