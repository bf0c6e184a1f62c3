"""A model's folder as Triton has it in a repository: its config, its versions, and the files beside them.

Source: Triton ``docs/user_guide/model_repository.md``, and core's reading of version folders: their names go through
``std::stoll``, so that ``2.tmp`` is a second version 2; names that begin with a zero are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tritonforge.errors import Place, SpecError

CONFIG: Final = "config.pbtxt"
MAX_CONFIG: Final = 8 << 20
"""Bytes of a config; a larger one is none."""

CONFIGS: Final = "configs"
"""The folder of further configs, of which ``--model-config-name`` names one."""

_NUMBER: Final = re.compile(r"[1-9]\d*", re.ASCII)
_READ_AS_NUMBER: Final = re.compile(r"\s*[+-]?\d", re.ASCII)
_LARGEST: Final = 2**62


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """``versions`` are the paths of files below each version's folder (none for an empty one), by its number.

    ``beside`` are the paths of all other files; ``config`` says whether there is a ``config.pbtxt``.
    """

    config: bool
    versions: Mapping[int, tuple[str, ...]]
    beside: tuple[str, ...]


def read_folder(files: Iterable[str], folders: Collection[str], place: Place) -> ModelFolder:
    """Tell the parts of a model's folder from the paths of its ``files`` and the names of the ``folders`` right below.

    Raises:
        SpecError: Triton would take a folder for another version than its name says, or for its config.
    """
    if CONFIG in folders:
        raise SpecError(f"{CONFIG} is a folder", place=place, expected="a file, or none")
    files = set(files)
    numbers = {name: number for name in sorted(folders) if (number := _version(name, place)) is not None}
    versions: dict[int, list[str]] = {number: [] for number in sorted(numbers.values())}
    beside = []
    for path in sorted(files):
        top, _, rest = path.partition("/")
        if rest and top in numbers:
            versions[numbers[top]].append(rest)
        elif path != CONFIG:
            beside.append(path)
    return ModelFolder(CONFIG in files, {number: tuple(paths) for number, paths in versions.items()}, tuple(beside))


def check_size(size: int, place: Place) -> None:
    """A config is small.

    Raises:
        SpecError: it is so large that it cannot be one.
    """
    if size > MAX_CONFIG:
        raise SpecError(f"a config is larger than {MAX_CONFIG >> 20} MiB", place=place, found=f"{size} bytes")


def _version(name: str, place: Place) -> int | None:
    """The number of a version's folder; None for a folder that is none."""
    if _NUMBER.fullmatch(name) and int(name) <= _LARGEST:
        return int(name)
    if not _READ_AS_NUMBER.match(name) or (len(name) > 1 and name[0] == "0"):
        return None
    raise SpecError(
        f"Triton reads the folder '{name}' as a version, which it cannot be",
        place=place,
        expected="a whole number from 1 on, without zeros in front, and nothing behind it",
        found=name,
        hint="give it a number of its own, a name that begins with a letter, or move it out of the model's folder",
    )
