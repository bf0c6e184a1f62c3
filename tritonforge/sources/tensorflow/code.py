"""Python that the spec names for a source: its factory, and the classes of custom layers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tritonforge.errors import CheckFailed, Place


@contextmanager
def code_of(folder: Path) -> Iterator[None]:
    """The modules below ``code/`` are importable, for this source alone: another one may have files of equal names."""
    root = (folder / "code").resolve()
    _forget(root)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        _forget(root)


@contextmanager
def named_objects(folder: Path, names: Mapping[str, str], place: Place) -> Iterator[dict[str, Any]]:
    """The objects that ``names`` (registered name → ``PACKAGE.MODULE:NAME``) stand for, while the code is at hand."""
    with code_of(folder):
        yield {name: find(target, place) for name, target in names.items()}


def find(target: str, place: Place) -> Any:
    """The object ``PACKAGE.MODULE:NAME``.

    Raises:
        CheckFailed: the module cannot be imported, or has no such name.
    """
    module, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except ImportError as error:
        raise CheckFailed(
            f"the module '{module}' cannot be imported",
            place=place,
            found=str(error),
            hint="list its files under `tensorflow.code`, or install it where tritonforge runs",
        ) from None
    except AttributeError as error:
        raise CheckFailed(f"'{target}' does not exist", place=place, found=str(error)) from None
    except Exception as error:  # whatever the module does when it is imported
        raise CheckFailed(
            f"the module '{module}' fails when it is imported", place=place, found=f"{type(error).__name__}: {error}"
        ) from None
    return found


def _forget(root: Path) -> None:
    """Take the modules of a folder, and of any ``code`` folder of an earlier source, out of the interpreter."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and root in Path(file).resolve().parents:
            del sys.modules[name]
