"""torchvision and timm for tests, beside a PyTorch that was built for CPUs.

PyPI's torchvision is built for CUDA: its compiled operators do not load beside a CPU build of PyTorch, and its Python
then refuses to be imported. A stand-in says so: it declares the operators without implementing them, so that networks
that use none of them run as they are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERSIONS = ("torchvision==0.28.0", "timm==1.0.31")
SITE = '''
import importlib.abc
import sys


class Declare(importlib.abc.MetaPathFinder):
    """Declares torchvision's operators just before its Python is imported."""

    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for schema in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a, Tensor b, float c) -> Tensor"):
                self.library.define(schema)
            sys.modules["_declared_torchvision"] = self.library
        return None


sys.meta_path.insert(0, Declare())
'''


def with_vision_libraries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install both below ``folder``, for this process's lookups and for the worker processes that it starts."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *VERSIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"torchvision and timm cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    (folder / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
