"""Where a module's Python looks at the values of tensors: what a trace burns in without a word to the user.

PyTorch's tracer warns whenever a tensor becomes a Python value. Many such places are harmless: a check of sizes that
comes out the same for every size. ``torch.export`` proves which, over all sizes, or finds the one that is not.
"""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place

_SUSPICIOUS: Final = (
    "Converting a tensor to a",
    "Iterating over a tensor",
    "Using len to get tensor shape",
    "torch.tensor results are registered as constants",
)


@dataclass(frozen=True, slots=True)
class Look:
    """One place where Python saw inside a tensor; ``what`` is the statement (``if``, ``while``, ``for``, a call)."""

    file: str
    line: int
    what: str

    @property
    def place(self) -> Place:
        return Place(Path(self.file), self.line)

    def __str__(self) -> str:
        return f"{self.what} at {Path(self.file).name}:{self.line} depends on a tensor"


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced module and the places that the tracer warned of, each once."""

    module: Any
    looks: tuple[Look, ...]


def trace(module: Any, arguments: tuple[Any, ...]) -> Traced:
    """Trace ``module``; nothing is checked yet."""
    import torch

    jit: Any = torch.jit
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with torch.no_grad():
            traced = jit.trace(module, arguments, check_trace=False)
    looks = {}
    for warning in said:
        if str(warning.message).startswith(_SUSPICIOUS):
            look = Look(warning.filename, warning.lineno, _statement(warning.filename, warning.lineno))
            looks[look.file, look.line] = look
    return Traced(traced, tuple(looks.values()))


def export_objects(module: Any, arguments: tuple[Any, ...], signature: Signature) -> str | None:
    """What ``torch.export`` has against the module being one graph for all sizes; None where it proves that it is."""
    import torch

    from tritonforge.steps.compile.export_graph import dynamic_shapes

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.export.export(
                module, arguments, dynamic_shapes=dynamic_shapes(signature, bounded=False), strict=False
            )
    except Exception as error:  # torch.export raises classes of many of its own layers
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (lines or [type(error).__name__])[0][:300]
    return None


def first_of_the_users(looks: Sequence[Look]) -> Look:
    """The look that is not inside an installed library, where there is one."""
    own = [look for look in looks if "site-packages" not in look.file]
    return (own or list(looks))[0]


def _statement(file: str, line: int) -> str:
    """The kind of statement that stands at a line of a source file."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError, RecursionError):
        return "a statement"
    best: tuple[int, str] | None = None
    for node in ast.walk(tree):
        name = _NAMES.get(type(node))
        head = _head(node)
        if name is not None and head is not None and node.lineno <= line <= (head.end_lineno or head.lineno):  # type: ignore[attr-defined]
            size = (head.end_lineno or head.lineno) - node.lineno  # type: ignore[attr-defined]
            if best is None or size <= best[0]:
                best = (size, name)
    return "a conversion" if best is None else best[1]


_NAMES: Final[dict[type[ast.AST], str]] = {
    ast.If: "if",
    ast.IfExp: "if",
    ast.While: "while",
    ast.For: "for",
    ast.Assert: "assert",
    ast.comprehension: "for",
}


def _head(node: ast.AST) -> Any:
    """The expression that a statement looks at."""
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        return node.test
    return node.iter if isinstance(node, ast.For) else None
