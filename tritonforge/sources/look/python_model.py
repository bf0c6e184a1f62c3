"""Look at a model of Triton's Python backend: its text, which is parsed and never run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import ModelFacts, axis_sizes, files_below

_LIMIT: Final = 4 * 2**20


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of ``model.py``: what its class defines, and what it imports.

    Raises:
        CheckFailed: no Python.
        UsageError: an axis was given; a Python model tells of none.
    """
    file = path / "model.py" if path.is_dir() else path
    sizes = axis_sizes((), axes, Place(file))
    if file.stat().st_size > _LIMIT:
        raise CheckFailed("model.py is too large", place=Place(file), expected=f"at most {_LIMIT} bytes")
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckFailed(
            "model.py is no Python", place=Place(file, getattr(error, "lineno", None)), found=str(error)[:200]
        ) from None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    model = classes.get("TritonPythonModel")
    methods = (
        {node.name for node in model.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        if model
        else set()
    )
    problems = []
    if model is None:
        problems.append("model.py has no class TritonPythonModel, which the backend looks for")
    elif "execute" not in methods:
        problems.append("TritonPythonModel has no method execute")
    modules = sorted(_imports(tree) - {"triton_python_backend_utils"})
    return ModelFacts(
        format="python",
        path=path,
        files=files_below(path) if path.is_dir() else {file.name: file.stat().st_size},
        sizes=sizes,
        versions={"methods": ", ".join(sorted(methods)), "imports": ", ".join(modules)},
        problems=tuple(problems),
        notes=("inputs and outputs are what the spec declares: a Python model's file does not say them",),
    )


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
