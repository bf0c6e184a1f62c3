"""Give a user what was made, whole or not at all: staged beside its place, then put there by one rename."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tritonforge.durable import disk_errors, exchange, fault_point, fsync_file, fsync_folder
from tritonforge.errors import UsageError

OUTPUT_FAULTS: Final[tuple[str, ...]] = (
    "output.folder.staged",
    "output.folder.renamed",
    "output.file.staged",
    "output.file.renamed",
)
"""The durable steps of a hand-over, as ``TRITONFORGE_FAULT`` names them."""


def check_free(target: Path, *, force: bool, mark: str) -> None:
    """Refuse a place that is taken, before anything is made for it.

    With ``force`` a file may be replaced, and a folder that an earlier run wrote (it holds ``mark``) or that is empty.

    Raises:
        UsageError: it is taken.
    """
    if not os.path.lexists(target):
        return
    if not force:
        raise UsageError(
            "the output is there already", found=str(target), hint="name another by --output, or replace it by --force"
        )
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise UsageError("the output is neither a file nor a folder", found=str(target), hint="name another")
    if target.is_dir() and not (target / mark).is_file() and any(target.iterdir()):
        raise UsageError(
            "that folder is somebody's: it is not empty, and no earlier run wrote it",
            found=str(target),
            hint="name another by --output",
        )


def hand_over_folder(target: Path, fill: Callable[[Path], None], *, force: bool, mark: str) -> None:
    """Make ``target`` the folder that ``fill`` writes into a staged one.

    Raises:
        UsageError: it is taken by now.
        EnvironmentLacks: the file system refuses.
    """
    with disk_errors("cannot write the output", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        staged = _staged(target)
        try:
            staged.mkdir()
            fill(staged)
            for base, _, names in os.walk(staged):
                for name in names:
                    fsync_file(Path(base) / name)
                fsync_folder(Path(base))
            check_free(target, force=force, mark=mark)
            fault_point("output.folder.staged")
            if target.is_dir():
                exchange(staged, target)
            else:
                if target.is_file():
                    target.unlink()  # by force: no rename puts a folder in a file's place
                staged.rename(target)  # a folder never takes the place of what appeared in this very instant
            fault_point("output.folder.renamed")
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def hand_over_file(target: Path, write: Callable[[Path], None], *, force: bool) -> None:
    """Make ``target`` the file that ``write`` writes at a staged path.

    Raises:
        UsageError: it is taken by now.
        EnvironmentLacks: the file system refuses.
    """
    with disk_errors("cannot write the output", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        staged = _staged(target)
        try:
            write(staged)
            fsync_file(staged)
            fault_point("output.file.staged")
            if force:
                staged.replace(target)
            else:
                try:
                    os.link(staged, target)  # unlike a rename it replaces nothing
                except FileExistsError:
                    check_free(target, force=False, mark="")
            fault_point("output.file.renamed")
            fsync_folder(target.parent)
        finally:
            staged.unlink(missing_ok=True)


def _staged(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.staging")


def _sweep(target: Path) -> None:
    """Delete what killed runs of this machine left."""
    beginning = f".{target.name}."
    with os.scandir(target.parent) as entries:
        names = [item.name for item in entries if item.name.startswith(beginning) and item.name.endswith(".staging")]
    for name in names:
        owner = name.removeprefix(beginning).split(".")[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        left = target.with_name(name)
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
