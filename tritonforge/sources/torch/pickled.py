"""Whole modules that were pickled: refused unless the spec allows that very file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritonforge.errors import CheckFailed, ForgeError, Place
from tritonforge.sources.torch.code import FOLDERS, where
from tritonforge.sources.torch.user_code import activate, settle
from tritonforge.sources.torch_file import read


def load_pickle(folder: Path, file: Path, *, allowed: bool) -> Any:
    """The module of a pickle, which runs whatever the file says.

    Raises:
        CheckFailed: it is not allowed, or holds something else than a module.
    """
    import torch

    if not allowed:
        raise refuse_pickle(file)
    activate([folder / name for name in FOLDERS])
    try:
        module = torch.load(str(file), map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs code: anything may come out of it
        raise CheckFailed(
            f"{file.name} cannot be unpickled",
            place=Place(file),
            found=f"{type(error).__name__}: {error}{where(error, folder)}",
            hint="the file that its classes are defined in goes into `torch.code`",
        ) from None
    finally:
        settle()
    if not isinstance(module, torch.nn.Module):
        raise CheckFailed(
            f"{file.name} holds no module",
            place=Place(file),
            found=type(module).__name__,
            expected="a torch.nn.Module",
            hint="a state dict goes with `torch: {module: PACKAGE.MODULE:NAME}`" if isinstance(module, dict) else None,
        )
    return module


def refuse_pickle(file: Path) -> CheckFailed:
    """The error for a file that would run code: what it would import, and the ways round it."""
    try:
        names = read(file).unsafe_globals
    except ForgeError:
        names = ()
    return CheckFailed(
        f"{file.name} is a pickle, and loading it would run the code that it names",
        place=Place(file),
        found="it would import " + ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else None,
        expected="weights alone, TorchScript, or a program of torch.export",
        hint="save its state dict (`torch.save(module.state_dict(), …)`) and name the class with `torch.module`; or, "
        "if you made this file yourself, say `torch: {allow_pickle: true}` for it",
    )
