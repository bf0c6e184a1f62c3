"""TorchScript files, read only where their code touches no files.

TorchScript is a language of its own that runs while a file is loaded (``__setstate__``) and when it is called. Its
operators compute, but for those that read and write files: the code that the archive holds must not name them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.archive import member, open_archive
from tritonforge.sources.torch.exported import require_distinct

_FILES: Final = re.compile(r"\b(?:torch|ops\.\w+|aten)\.(save|from_file|load)\b\s*\(")
_CODE_LIMIT: Final = 64 << 20


def load_scripted(file: Path) -> Any:
    """The ``ScriptModule`` of a file, on the CPU.

    Raises:
        CheckFailed: its code would read or write files.
    """
    import torch

    require_no_files(file)
    load: Callable[..., Any] = torch.jit.load
    return load(str(file), map_location="cpu")


def require_no_files(file: Path) -> None:
    """Look through the code of a TorchScript archive.

    Raises:
        CheckFailed: an operator of it reads or writes files, or the archive is no archive as PyTorch writes it.
    """
    with open_archive(file) as archive:
        require_distinct(archive.namelist(), file)
        for name in archive.namelist():
            if not name.casefold().endswith(".py"):
                continue
            text = member(archive, name, _CODE_LIMIT).decode("utf-8", "replace")
            found = _FILES.search(text)
            if found is not None:
                raise CheckFailed(
                    f"{file.name} has code that reads or writes files",
                    place=Place(file, text.count("\n", 0, found.start()) + 1, name),
                    found=found.group(0).rstrip("( "),
                    hint="export it again without that call",
                )
