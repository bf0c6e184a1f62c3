"""Every error a user can meet, each with its exit code (the table is in ``docs/concepts.md``).

A message says what is wrong; ``place`` says where; ``expected`` and ``found`` say how it differs; ``hint`` says
what to do. The command line renders them; no traceback reaches a user unless ``--debug`` is given. Whatever starts
imports this file: it imports nothing that only an error needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class ExitCode(IntEnum):
    """What a tritonforge process says when it ends."""

    OK = 0
    BAD = 1
    USAGE = 2
    ENVIRONMENT = 3
    INCONCLUSIVE = 4
    INTERRUPTED = 5
    INTERNAL = 70


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written: a file, a line in it (from 1) and a field path such as ``models.a.source``."""

    file: Path | None = None
    line: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        where = "" if self.file is None else str(self.file)
        if self.line is not None:
            where = f"{where}:{self.line}" if where else f"line {self.line}"
        if self.field:
            where = f"{where}: {self.field}" if where else self.field
        return where


class ForgeError(Exception):
    """Something a user can act on; subclasses fix the exit code."""

    exit_code: ClassVar[ExitCode] = ExitCode.BAD

    def __init__(
        self,
        message: str,
        *,
        place: Place | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
        details: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.expected = expected
        self.found = found
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        lines = [self.message]
        if self.place is not None and str(self.place):
            lines.append(f"  at {self.place}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        lines.extend(f"  {detail}" for detail in self.details)
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.to_json()))

    def to_json(self) -> dict[str, object]:
        """The error as plain data: what ``--json`` prints and what crosses a process boundary."""
        place = self.place
        return {
            "error": type(self).__name__,
            "message": self.message,
            "file": None if place is None or place.file is None else str(place.file),
            "line": None if place is None else place.line,
            "field": None if place is None else place.field,
            "expected": self.expected,
            "found": self.found,
            "hint": self.hint,
            "details": list(self.details),
            "exit_code": int(self.exit_code),
        }


class CheckFailed(ForgeError):
    """The thing that was checked is bad: an artefact, a model, a gate."""

    exit_code = ExitCode.BAD


class UsageError(ForgeError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = ExitCode.USAGE


class SpecError(ForgeError):
    """The spec, the lock or an input that they name is wrong."""

    exit_code = ExitCode.USAGE


class EnvironmentLacks(ForgeError):
    """This machine lacks something: a package, a port, space, a permission, a server."""

    exit_code = ExitCode.ENVIRONMENT


class Inconclusive(ForgeError):
    """What was measured allows no verdict; it never passes."""

    exit_code = ExitCode.INCONCLUSIVE


class Interrupted(ForgeError):
    """The user or the system stopped the command; running it again goes on."""

    exit_code = ExitCode.INTERRUPTED


class InternalError(ForgeError):
    """A defect of tritonforge itself."""

    exit_code = ExitCode.INTERNAL


_BY_NAME: dict[str, type[ForgeError]] = {
    cls.__name__: cls
    for cls in (
        ForgeError,
        CheckFailed,
        UsageError,
        SpecError,
        EnvironmentLacks,
        Inconclusive,
        Interrupted,
        InternalError,
    )
}


def from_json(data: dict[str, object]) -> ForgeError:
    """Rebuild an error that :meth:`ForgeError.to_json` wrote; an unknown name becomes :class:`InternalError`."""
    cls = _BY_NAME.get(str(data.get("error")), InternalError)
    return _rebuild(cls, data)


def _rebuild(cls: type[ForgeError], data: dict[str, object]) -> ForgeError:
    def text(name: str) -> str | None:
        value = data.get(name)
        return None if value is None else str(value)

    from pathlib import Path

    file, line, details = text("file"), data.get("line"), data.get("details")
    place = Place(None if file is None else Path(file), line if isinstance(line, int) else None, text("field"))
    return cls(
        text("message") or "",
        place=place if str(place) else None,
        expected=text("expected"),
        found=text("found"),
        hint=text("hint"),
        details=[str(item) for item in details] if isinstance(details, list) else (),
    )


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known words, or lists them all when none is near and they are few."""
    import difflib

    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    if names and len(names) <= 12:
        return "known here: " + ", ".join(names)
    return None
