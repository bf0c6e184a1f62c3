"""The virtual environments of the programs that benchmarks compare with, made by the first run that needs them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

FOLDER = Path.home() / ".cache/tritonforge-benchmarks"
HERE = Path(__file__).parent


def peer(name: str, peers: Path) -> Path:
    """The ``bin`` folder of an environment with ``requirements-<name>.txt``, made anew when that file changed."""
    requirements = HERE / f"requirements-{name}.txt"
    target = peers.resolve() / name
    stamp = target / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest:
        print(f"making the environment of {name} in {target}", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
        pip_install = [str(target / "bin/python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run(pip_install, check=True, stdout=sys.stderr)
        stamp.write_text(digest, encoding="utf-8")
    return target / "bin"
