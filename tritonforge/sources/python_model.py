"""A static look at a Python model: does it have what Triton's Python backend calls? Nothing of it is run.

Source: Triton's ``python_backend`` README, "Usage".
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place

MAX_BYTES: Final = 8 << 20
_CLASS: Final = "TritonPythonModel"
_ARGUMENTS: Final = {"execute": ("self", "requests"), "initialize": ("self", "args"), "finalize": ("self",)}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def check_interface(source: Path) -> None:
    """Check a ``model.py``, or the folder that holds one.

    Raises:
        CheckFailed: there is none, it is no Python, lacks ``TritonPythonModel.execute(self, requests)``, or gives a
            method arguments that Triton does not pass; or the folder has a link that leads out of it.
    """
    file = source / "model.py" if source.is_dir() else source
    if source.is_dir():
        _check_links(source)
    module = _parse(file)
    model = _class(module, file)
    if model is None:
        return
    methods = {item.name: item for item in model.body if isinstance(item, Function)}
    if "execute" not in methods and not model.bases:
        raise CheckFailed(
            f"{_CLASS} has no method `execute`",
            place=Place(file, model.lineno),
            expected="def execute(self, requests): … which returns one response a request",
        )
    for name, arguments in _ARGUMENTS.items():
        if name in methods:
            _check_arguments(methods[name], arguments, file)
    if "auto_complete_config" in methods:
        _check_auto_complete(methods["auto_complete_config"], file)
    for name in ("initialize", "finalize"):
        if isinstance(methods.get(name), ast.AsyncFunctionDef):
            raise CheckFailed(
                f"`{name}` is a coroutine, and Triton does not await it",
                place=Place(file, methods[name].lineno),
                expected=f"def {name}(…), without async",
            )


def _parse(file: Path) -> ast.Module:
    place = Place(file)
    if not file.is_file():
        raise CheckFailed("there is no model.py", place=place, expected="a file with the class TritonPythonModel")
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise CheckFailed(
            f"model.py is larger than {MAX_BYTES >> 20} MiB",
            place=place,
            found=f"{size} bytes",
            hint="keep data in files of their own, beside it",
        )
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        found = (error.text or "").strip() or None
        raise CheckFailed(
            f"model.py is no valid Python: {error.msg}", place=Place(file, error.lineno), found=found
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckFailed(f"model.py cannot be read: {error}", place=place) from None


def _class(module: ast.Module, file: Path) -> ast.ClassDef | None:
    """The class where it is defined here; None where the name comes from elsewhere, which is not followed."""
    for node in _top_level(module.body):
        if isinstance(node, ast.ClassDef) and node.name == _CLASS:
            return node
    for node in _top_level(module.body):
        if isinstance(node, ast.ImportFrom | ast.Import):
            if any(alias.name == "*" or (alias.asname or alias.name) == _CLASS for alias in node.names):
                return None
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == _CLASS for target in node.targets
        ):
            return None
    near = [node.name for node in _top_level(module.body) if isinstance(node, ast.ClassDef)]
    raise CheckFailed(
        f"model.py has no class {_CLASS}",
        place=Place(file),
        expected=f"class {_CLASS} with def execute(self, requests)",
        found="classes: " + ", ".join(near) if near else "no class",
    )


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when the module is imported, with both sides of conditions."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _top_level([*node.body, *(s for handler in node.handlers for s in handler.body), *node.orelse])
        elif isinstance(node, ast.With):
            yield from _top_level(node.body)


def _decorators(method: Function) -> set[str]:
    return {item.id for item in method.decorator_list if isinstance(item, ast.Name)}


def _check_arguments(method: Function, passed: tuple[str, ...], file: Path) -> None:
    arguments = method.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    given = len(passed)
    if "staticmethod" in _decorators(method):
        # Without `self` there is one argument less to take.
        given -= 1
    keyword_only = [
        item for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
    ]
    fits = required <= given and (given <= len(positional) or arguments.vararg is not None) and not keyword_only
    if not fits:
        raise CheckFailed(
            f"`{method.name}` does not take what Triton passes",
            place=Place(file, method.lineno),
            expected=f"def {method.name}({', '.join(passed)})",
            found=f"def {method.name}({ast.unparse(arguments)})",
        )


def _check_auto_complete(method: Function, file: Path) -> None:
    place = Place(file, method.lineno)
    if "staticmethod" not in _decorators(method):
        raise CheckFailed("`auto_complete_config` is not static", place=place, expected="@staticmethod in front of it")
    if isinstance(method, ast.AsyncFunctionDef):
        raise CheckFailed("`auto_complete_config` is a coroutine, and Triton does not await it", place=place)
    _check_arguments(method, ("self", "auto_complete_model_config"), file)


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise CheckFailed(
                    "a link of the model's folder leads out of it",
                    place=Place(path),
                    found=f"{path.relative_to(folder)} → {path.readlink()}",
                    hint="copy the file into the folder",
                )
            if not path.is_symlink() and not path.is_file() and not path.is_dir():
                raise CheckFailed("the model's folder holds something that is no file", place=Place(path))
