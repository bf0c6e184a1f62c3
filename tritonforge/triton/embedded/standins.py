"""Put the stand-in backends beside the vendor's Python backend, for one start of the server.

Triton has no onnxruntime, pytorch or openvino backend here, but takes a folder ``NAME/model.py`` in its backend
directory as the backend ``NAME``: models whose configuration names it are run by that Python code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tritonforge.triton.embedded.runtime import Runtime

SOURCES: Final = Path(__file__).parent / "backends"
STANDINS: Final = ("onnxruntime", "openvino", "pytorch")
_SHARED: Final = ("standin_config.py", "standin_requests.py", "standin_state.py")
_BRIDGE: Final = "numpy2_bridge.py"
_ACTIVATE: Final = """

import sys as _sys

import numpy2_bridge as _numpy2_bridge

_numpy2_bridge.activate(_sys.modules[__name__])
"""


def place(runtime: Runtime, folder: Path) -> Path:
    """Make ``folder`` the backend directory of one server and return it.

    The vendor's files stay as they are, but for one line at the end of a copy of ``triton_python_backend_utils.py``
    that activates the bridge to NumPy 2 (see ``backends/python/numpy2_bridge.py``).
    """
    python = folder / "python"
    python.mkdir(parents=True)
    for source in sorted((runtime.backend_directory / "python").iterdir()):
        if not source.is_file():
            continue
        if source.name == "triton_python_backend_utils.py":
            (python / source.name).write_text(source.read_text() + _ACTIVATE)
        else:
            # Copies: Triton refuses a library that a link takes out of the backend directory.
            shutil.copy(source, python / source.name)
    shutil.copyfile(SOURCES / "python" / _BRIDGE, python / _BRIDGE)
    for name in STANDINS:
        target = folder / name
        target.mkdir()
        shutil.copyfile(SOURCES / name / "model.py", target / "model.py")
        for shared in _SHARED:
            shutil.copyfile(SOURCES / shared, target / shared)
    return folder
