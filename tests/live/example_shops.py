"""The example repositories built from nothing, with fetched packages shared among tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli.commands import Workshop

from tritonforge.artifact.store import default_home
from tritonforge.triton.embedded import Runtime

REPOSITORIES = Path(__file__).parents[2] / "repositories"


def example(name: str, runtime: Runtime, root: Path) -> Workshop:
    """A copy of ``repositories/NAME`` with a home of its own, in which only runtimes and wheels are there already."""
    made = Workshop.make(root, runtime.root.parent)
    packages = default_home() / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    (made.home / "packages").symlink_to(packages)
    shutil.copytree(
        REPOSITORIES / name, made.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build", "__pycache__")
    )
    return made
