"""Python files that come with a model: first while it is made, last while it runs, and gone with the next one.

Two models may both have a ``net.py``. ``sys.path`` stays as it is: a finder of its own answers for the names of the
files, and what it imported leaves ``sys.modules`` when the model is made. Nothing is compiled to disk, and no
compiled file beside the sources is read.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import sys
import tokenize
from collections.abc import Sequence
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place

PACKAGE: Final = "model_code"
"""The package that the source's own folder is where its modules import each other relatively."""

_PROTECTED: Final = frozenset({"torch", "numpy", "tritonforge", "onnx", "onnxscript", "onnxruntime", "safetensors"})


class _Loader(SourceFileLoader):
    """Sources only: without a source's time stamp, compiled files are neither read nor written."""

    def path_stats(self, path: Any) -> Any:
        raise OSError("compiled files are not used")


class _Finder:
    """Finds top-level modules in ``roots``, and everything below the packages that it found."""

    def __init__(self, roots: Sequence[Path], packages: dict[str, Path]) -> None:
        self.roots = [str(root) for root in roots]
        self.packages = packages
        self.named: str | None = None

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if path is not None:
            own = [entry for entry in path if any(_is_below(entry, root) for root in self.roots)]
            return self._search(fullname, own)
        if fullname in self.packages:
            return self._root_package(fullname, self.packages[fullname])
        if fullname in sys.stdlib_module_names and fullname != self.named:
            return None
        return self._search(fullname, self.roots)

    def _search(self, fullname: str, folders: Sequence[str]) -> ModuleSpec | None:
        portions: list[str] = []
        for folder in folders:
            spec = FileFinder(folder, (_Loader, importlib.machinery.SOURCE_SUFFIXES)).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
            if spec is not None:
                portions += spec.submodule_search_locations or []
        if not portions or ("." not in fullname and PathFinder.find_spec(fullname) is not None):
            return None  # a folder without `__init__.py` never hides a package
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = portions
        return spec

    def _root_package(self, name: str, root: Path) -> ModuleSpec:
        file = root / "__init__.py"
        loader = _Loader(name, str(file)) if file.is_file() else None
        spec = ModuleSpec(name, loader, origin=str(file) if loader else None, is_package=True)
        spec.submodule_search_locations = [str(root)]
        spec.has_location = loader is not None
        return spec


class _Active:
    """The code of the model that is at work, and what it hides meanwhile."""

    finder: _Finder | None = None
    hidden: dict[str, ModuleType] = {}  # noqa: RUF012 - one process, one model at a time


def activate(roots: Sequence[Path]) -> None:
    """Make the Python files below ``roots`` importable, and nothing of the model before.

    Raises:
        CheckFailed: a file has the name of a package that everything here stands on.
    """
    deactivate()
    roots = [root.resolve() for root in roots if root.is_dir()]
    own = {name for root in roots for name in _top_level(root)}
    taken = sorted(own & _PROTECTED)
    if taken:
        raise CheckFailed(
            f"the model's code hides the package {taken[0]}",
            found=f"{taken[0]}.py or a folder {taken[0]}/",
            expected="names that no library here has",
            hint="rename the file",
        )
    finder = _Finder(roots, {})
    _Active.finder = finder
    _Active.hidden = {}
    for name in own - sys.stdlib_module_names:
        _hide(name)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()


def settle() -> None:
    """The model is made: forget its modules, and answer from now on only where nothing else does.

    What ``forward`` imports when it runs is still found; code that another loader brings is not hidden.
    """
    finder = _Active.finder
    if finder is not None:
        _forget(finder)
        sys.meta_path.remove(finder)
        sys.meta_path.append(finder)


def deactivate() -> None:
    """Forget the code of the model before, and put back what it hid."""
    finder = _Active.finder
    if finder is not None:
        _forget(finder)
        sys.meta_path.remove(finder)
        _Active.finder = None


def _forget(finder: _Finder) -> None:
    for name, module in list(sys.modules.items()):
        if name in finder.packages or any(_is_below(place, root) for place in _places(module) for root in finder.roots):
            del sys.modules[name]
    sys.modules.update(_Active.hidden)
    _Active.hidden = {}


def find_object(target: str) -> Any:
    """The object ``PACKAGE.MODULE:NAME`` from the active code or, where it has no such module, from what is installed.

    Raises:
        CheckFailed: there is no such module or name, or importing it raises.
    """
    module_name, _, path = target.partition(":")
    found: Any = _import(module_name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise CheckFailed(
                f"'{module_name}' has no '{path}'",
                place=Place(_file_of(found), field="torch.module"),
                found=", ".join(_public(found)[:12]) or "no classes or functions",
                expected="a class, or a function that makes the module",
            ) from None
    if not callable(found):
        raise CheckFailed(
            f"'{target}' is no class or function", place=Place(field="torch.module"), found=type(found).__name__
        )
    return found


def _import(name: str) -> ModuleType:
    finder = _Active.finder
    wanted = name
    if finder is not None:
        top, _, rest = name.partition(".")
        finder.named = top
        own = finder._search(top, finder.roots)
        if own is None and rest and (root := _root_with(finder, rest)) is not None:
            finder.packages[top] = root
        elif (
            own is not None
            and own.submodule_search_locations is None  # a package has its own relative imports
            and not rest
            and own.origin
            and _imports_relatively(Path(own.origin))
        ):
            finder.packages[PACKAGE] = Path(own.origin).parent
            wanted = f"{PACKAGE}.{name}"
        if own is not None or top in finder.packages:
            _hide(top)
    try:
        return importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name is None or not (wanted == error.name or wanted.startswith(f"{error.name}.")):
            raise CheckFailed(
                f"the code of the model imports '{error.name}', which is not here",
                place=Place(field="torch.module"),
                found=str(error),
                hint="bring its file with `torch.code`, or install the package that has it",
            ) from None
        files = sorted(
            str(file.relative_to(root))
            for root in (finder.roots if finder else ())
            for file in Path(root).rglob("*.py")
        )
        raise CheckFailed(
            f"there is no module '{name}'",
            place=Place(field="torch.module"),
            expected="a module in the source's folder, in `torch.code`, or installed",
            found=", ".join(files[:8]) or "no Python files",
        ) from None
    except CheckFailed:
        raise
    except Exception as error:  # the user's code raises whatever it likes
        raise CheckFailed(
            f"the module '{name}' cannot be imported",
            place=Place(_raised_in(error), _raised_at(error)),
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}",
        ) from None


def _root_with(finder: _Finder, rest: str) -> Path | None:
    """The root that is the package itself: a source folder's own name is not kept."""
    for root in finder.roots:
        if finder._search(rest.partition(".")[0], [root]) is not None:
            return Path(root)
    return None


def _imports_relatively(file: Path) -> bool:
    try:
        with tokenize.open(file) as stream:
            tree = ast.parse(stream.read())
    except (SyntaxError, UnicodeDecodeError, OSError):
        return False  # importing it says what is wrong
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))


def _hide(name: str) -> None:
    finder = _Active.finder
    assert finder is not None
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        module = sys.modules[known]
        if not any(_is_below(place, root) for place in _places(module) for root in finder.roots):
            _Active.hidden[known] = sys.modules.pop(known)


def _top_level(root: Path) -> list[str]:
    return [
        path.stem
        for path in root.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
    ]


def _places(module: ModuleType) -> list[str]:
    """Where a module lies; some of torch's make up any attribute that they are asked for."""
    said = vars(module) if isinstance(module, ModuleType) else {}
    file, path = said.get("__file__"), said.get("__path__")
    folders = [] if path is None or isinstance(path, str) or not hasattr(type(path), "__iter__") else list(path)
    return [place for place in (file, *folders) if isinstance(place, str)]


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _public(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if not name.startswith("_") and callable(value)]


def _file_of(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)


def raised_by_user(error: BaseException) -> tuple[Path, int] | None:
    """The innermost line of the model's own code that an error came through."""
    found, trace = None, error.__traceback__
    roots = _Active.finder.roots if _Active.finder else []
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if any(_is_below(file, root) for root in roots):
            found = (Path(file), trace.tb_lineno)
        trace = trace.tb_next
    return found


def _raised_in(error: BaseException) -> Path | None:
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename)
    where = raised_by_user(error)
    return None if where is None else where[0]


def _raised_at(error: BaseException) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    where = raised_by_user(error)
    return None if where is None else where[1]
