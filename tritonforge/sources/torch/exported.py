"""Programs of ``torch.export``, read without running what the file holds.

``torch.export.load`` unpickles weights, constants and sample inputs that the archive says are pickles, and evaluates
sizes with ``sympy.sympify``, which is Python's ``eval`` (``torch/export/pt2_archive/_package.py`` and
``torch/_export/serde/serialize.py``, 2.13). Pickles are held to tensors here, and sizes to arithmetic.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, ForgeError, Place
from tritonforge.sources.archive import open_archive
from tritonforge.sources.torch.files import not_expected
from tritonforge.sources.torch_file import json_member

_FORCE: Final = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_REFUSE: Final = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_ARITHMETIC: Final = re.compile(r"[\w\s+\-*/(),.<>=&|~!%^]*")
_ATTRIBUTE: Final = re.compile(r"[A-Za-z_)]\w*\s*\.|\.\s*[A-Za-z_]")
_QUOTED: Final = re.compile(r"'(\w*|[-+.\de]*)'")
_CALL: Final = re.compile(r"([A-Za-z_]\w*)\s*\(")
_FUNCTIONS: Final = frozenset({
    "FloorDiv", "ModularIndexing", "Mod", "PythonMod", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "IntTrueDiv",
    "FloatTrueDiv", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat", "PowByNatural", "FloatPow",
    "Where", "Identity", "LShift", "RShift", "IsNonOverlappingAndDenseIndicator", "Min", "Max", "Pow", "Add", "Mul",
    "Abs", "floor", "ceiling", "sqrt", "exp", "log", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not",
    "Piecewise", "Integer", "Rational", "Float", "Symbol",
    "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan",
})  # fmt: skip
"""What sizes may call: ``torch.utils._sympy.functions``, and sympy's arithmetic."""


def load_exported(file: Path) -> Any:
    """The ``ExportedProgram`` of a ``.pt2`` file.

    Raises:
        CheckFailed: it is no such file, is damaged, or would run code of its own.
    """
    import torch

    _require_arithmetic(file)
    try:
        with _weights_only():
            return torch.export.load(str(file))
    except ForgeError:
        raise
    except Exception as error:  # torch's readers raise what pickle, json, zipfile and sympy raise
        if "weights_only" in str(error) or "Unsupported" in str(error) or "WeightsUnpickler" in str(error):
            raise CheckFailed(
                f"{file.name} has pickles of more than tensors, which would run code",
                place=Place(file),
                found=" ".join(str(error).split())[:300],
                expected="weights, constants and sample inputs that are tensors",
                hint="export it again from a module without custom objects (`torch.export.save`)",
            ) from None
        raise not_expected(file, "a program of torch.export", error) from None


def _require_arithmetic(file: Path) -> None:
    with open_archive(file) as archive:
        require_distinct(archive.namelist(), file)
        for name in archive.namelist():
            if name.casefold().endswith(".json"):
                for text in _expressions(json_member(archive, name)):
                    if not _is_arithmetic(_QUOTED.sub("0", text)):
                        raise CheckFailed(
                            f"{file.name} has a size that is no arithmetic, and reading it would run code",
                            place=Place(file, field=name),
                            found=text[:200],
                            expected="numbers, symbols and the functions of torch.export",
                        )


def require_distinct(names: Sequence[str], file: Path) -> None:
    """Two members of one name, in whatever case, are read by one reader as the first and by another as the last.

    Raises:
        CheckFailed: there are two.
    """
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise CheckFailed(
                f"{file.name} holds two files of one name",
                place=Place(file),
                found=name,
                expected="an archive as PyTorch writes it",
            )
        seen.add(name.casefold())


def _is_arithmetic(text: str) -> bool:
    allowed = _ARITHMETIC.fullmatch(text) is not None and _ATTRIBUTE.search(text) is None and "__" not in text
    return allowed and set(_CALL.findall(text)) <= _FUNCTIONS


def _expressions(document: Any) -> Iterator[str]:
    """Every text that is evaluated: ``expr_str`` of a size, and the symbols that have a range."""
    stack = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if key == "expr_str" and isinstance(value, str):
                    yield value
                elif key == "range_constraints" and isinstance(value, dict):
                    yield from map(str, value)
                if isinstance(value, dict | list):
                    stack.append(value)
        elif isinstance(item, list):
            stack.extend(value for value in item if isinstance(value, dict | list))


@contextmanager
def _weights_only() -> Iterator[None]:
    """``torch.load`` reads tensors alone, whatever its caller asks for."""
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _REFUSE)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})
