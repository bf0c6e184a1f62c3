"""Where an import is put together, and how all of it comes into its place, or none of it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tritonforge.durable import fsync_folder, write_atomic
from tritonforge.errors import UsageError

SPEC: Final = "forge.yaml"
LOCK: Final = "forge.lock"
MODELS: Final = "models"
STAGING: Final = ".tritonforge-import"
WHOLE: Final = "whole"
"""A file in the staging folder: everything is there, and what is no longer there stands in its place already."""


def check_target(repository: Path, into: Path) -> None:
    """Nothing that is there is overwritten, and nothing is written into the repository.

    Raises:
        UsageError: it would be.
    """
    if into.resolve().is_relative_to(repository.resolve()):
        raise UsageError(
            "the spec would stand in the repository itself, where Triton looks for models",
            found=str(into.resolve()),
            hint="name a folder elsewhere with --into",
        )
    for name in (SPEC, LOCK, MODELS):
        if (into / name).exists() and name not in _unfinished(into):
            raise UsageError(
                f"{into / name} exists already", hint="name another folder with --into, or move it out of the way"
            )


@contextmanager
def alone(into: Path) -> Iterator[Path]:
    """A staging folder in ``into``, which no other import writes to meanwhile; gone afterwards."""
    made = not into.exists()
    into.mkdir(parents=True, exist_ok=True)
    holder = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    staging = into / STAGING
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another import writes to {into} now", hint="wait for its end") from None
        undo(into)
        staging.mkdir()
        try:
            yield staging
        except BaseException:
            undo(into)
            if made and not any(into.iterdir()):
                into.rmdir()
            raise
    finally:
        os.close(holder)


def _unfinished(into: Path) -> list[str]:
    """What an import that was stopped before its end has put in place already. The spec comes last, and is the end."""
    staging = into / STAGING
    if not (staging / WHOLE).exists() or not (staging / SPEC).exists():
        return []
    return [name for name in (LOCK, MODELS) if not (staging / name).exists()]


def undo(into: Path) -> None:
    """Take away what an import that did not come to its end has left."""
    for name in _unfinished(into):
        _remove(into / name)
    _remove(into / STAGING)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def publish(staging: Path, into: Path) -> None:
    """Put everything in its place, the spec last."""
    for base, _, _ in os.walk(staging):
        fsync_folder(Path(base))
    write_atomic(staging / WHOLE, b"")
    for name in (MODELS, LOCK, SPEC):
        (staging / name).rename(into / name)
        fsync_folder(into)
    shutil.rmtree(staging)
