"""Make a module by the class or function that the spec names, without one model's code being seen by the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, ForgeError
from tritonforge.sources.torch.user_code import activate, find_object, settle

FOLDERS: Final = ("code", "model")
SEED: Final = 0
"""Weights that no file gives are made from this seed, so that a build gives the same ones each time."""


def make_module(folder: Path, named: str, arguments: Mapping[str, Any]) -> Any:
    """``PACKAGE.MODULE:NAME`` from the source's own code, or installed, called with ``arguments``.

    Raises:
        CheckFailed: there is no such module or name, or calling it fails; with the line of the user's code.
    """
    import torch

    activate([folder / name for name in FOLDERS])
    try:
        found = find_object(named)
        if isinstance(found, torch.nn.Module):
            return found
        torch.manual_seed(SEED)
        made = found(**arguments)
    except ForgeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise CheckFailed(
            f"'{named}' cannot be called with its `arguments`",
            found=f"{type(error).__name__}: {error}{where(error, folder)}",
            expected="keyword arguments as `torch.arguments` has them",
        ) from None
    finally:
        settle()
    if not isinstance(made, torch.nn.Module):
        raise CheckFailed(f"'{named}' made no module", found=type(made).__name__, expected="a torch.nn.Module")
    return made


def where(error: BaseException, folder: Path) -> str:
    """The last line of the user's own code in an error's traceback, as `` (net.py:12)``; empty without one."""
    import traceback

    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder) or Path(frame.filename).is_relative_to(folder.resolve())
    ]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
