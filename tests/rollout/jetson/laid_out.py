"""A board's files as a root folder: what ``board_root`` of a target names."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Final

BOARDS: Final = Path(__file__).parent / "boards"
_PROGRAMS: Final = ("nvpmodel", "docker", "uname", "df", "sudo")


def lay_out(name: str, folder: Path, *, real: tuple[str, ...] = ()) -> Path:
    """Copy the board ``name`` to ``folder`` and give it programs that print what its own printed.

    ``real`` programs are left to the machine, such as ``docker`` where it has an engine to serve with.
    """
    board = BOARDS / name
    shutil.copytree(board / "root", folder)
    programs = folder / "usr" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for program in _PROGRAMS:
        if program in real:
            continue
        script = programs / program
        script.write_text(_script(program, board / "says"))
        script.chmod(0o755)
    return folder


def _script(program: str, says: Path) -> str:
    """A shell script that prints a file's text by its arguments; without one the program is missing there."""
    cases = {
        "nvpmodel": {"-q": "nvpmodel"},
        "docker": {"info *": "docker-info"},
        "uname": {"-r": "uname-r", "-m": "uname-m"},
        "df": {"-Pk *": "df"},
    }.get(program, {})
    lines = ["#!/bin/sh", 'case "$*" in']
    for pattern, file in cases.items():
        if (says / file).is_file():
            text = shlex.quote((says / file).read_text().rstrip("\n"))
            shell_pattern = pattern.replace(" ", r"\ ")
            lines.append(f"{shell_pattern}) printf '%s\\n' {text}; exit 0;;")
    return "\n".join([*lines, "esac", f'echo "{program}: not found" >&2', "exit 127", ""])
