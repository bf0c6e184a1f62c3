"""What ONNX Runtime would tell its makers stays here, in every process that is started, unless the user wants it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ASKED = """
import os, subprocess, sys
import tritonforge
subprocess.run([sys.executable, "-c", "import onnxruntime"], check=True)
print(os.environ.get("ORT_DISABLE_TELEMETRY"))
"""


def left_behind(home: Path, **said: str) -> tuple[str, list[str]]:
    """What the variable is, and the files that a child that imports ONNX Runtime leaves in an empty home."""
    home.mkdir()
    # A CI's variables and XDG's would hide what it does for users.
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**kept, "HOME": str(home), **said},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip(), [path.name for path in home.rglob("*")]


def test_nothing_is_kept_for_telemetry(tmp_path: Path) -> None:
    assert left_behind(tmp_path / "ours") == ("1", [])


def test_who_wants_it_has_it(tmp_path: Path) -> None:
    assert left_behind(tmp_path / "wanted", ORT_DISABLE_TELEMETRY="0")[0] == "0"
