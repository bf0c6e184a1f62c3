"""Jinja2 templates, the house's and the user's, rendered in a sandbox.

A template can compute text and nothing else: it reaches no file outside its root folders, no attribute that leads to
Python's internals, and no unbounded amount of memory.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import tritonforge
from tritonforge.errors import ForgeError, InternalError, Place, SpecError, did_you_mean
from tritonforge.repository.pbtxt import quote

MAX_SOURCE: Final = 1 << 20
MAX_OUTPUT: Final = 4 << 20
_SUFFIX: Final = {"config": ".pbtxt.j2", "routers": "/model.py.j2", "haproxy": ".cfg.j2", "docker": ".Dockerfile.j2"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of a template; ``label`` names it: ``latency (templates/config/latency.pbtxt.j2)``."""

    text: str
    label: str
    file: Path


def house_templates() -> Path:
    """The folder of the templates that come with tritonforge.

    ``tritonforge/templates`` is a link to the top-level folder in a checkout and a real folder in a wheel.
    """
    package = Path(tritonforge.__file__).parent
    for folder in (package / "templates", package.parent / "templates"):
        if (folder / "config").is_dir():
            return folder
    raise InternalError("tritonforge's templates are missing", place=Place(package / "templates"), hint="reinstall it")


def house_names(kind: str) -> tuple[str, ...]:
    """The names of the house's templates of a kind (``config``, ``routers``), but for those others are built on."""
    suffix = _SUFFIX[kind]
    root = house_templates() / kind
    found = (path.relative_to(root).as_posix().removesuffix(suffix) for path in root.glob(f"*{suffix}"))
    return tuple(sorted(name for name in found if name != "base"))


def render(
    kind: str,
    name: str,
    variables: Mapping[str, Any],
    *,
    folders: Sequence[Path] = (),
    place: Place | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Rendered:
    """Render the template ``name`` of a kind: the user's ``folders`` first, then the house's.

    ``name`` is a house style (``latency``) or the path of a file below one of the folders. ``place`` is where it was
    asked for.

    Raises:
        SpecError: there is no such template, it is not well formed, uses a variable that does not exist, or breaks
            out of the sandbox: with its file and line.
    """
    import jinja2

    environment = _environment((*folders, house_templates()))
    known = _find(environment.loader, kind, name, folders, place)
    try:
        template = environment.get_template(known)
        text = _bounded(template.generate({**variables, **(functions or {})}))
    except jinja2.TemplateSyntaxError as error:
        file = None if error.filename is None else Path(error.filename)
        raise SpecError(
            f"the template '{name}' is not well formed: {error.message}", place=Place(file, error.lineno)
        ) from None
    except jinja2.TemplateNotFound as error:
        raise SpecError(
            f"the template '{name}' asks for '{error.name}', which does not exist",
            place=_template_place(error, environment.loader),
        ) from None
    except ForgeError as error:
        error.place = error.place or _template_place(error, environment.loader)
        raise
    except jinja2.UndefinedError as error:
        hint = did_you_mean(str(error.message).split("'")[1], variables) if "'" in str(error.message) else None
        place = _template_place(error, environment.loader)
        raise SpecError(f"the template '{name}' failed: {error.message}", place=place, hint=hint) from None
    except RecursionError:
        raise SpecError(f"the template '{name}' calls itself without end", place=place) from None
    except Exception as error:  # whatever a template's expressions can raise is the template's fault
        raise SpecError(
            f"the template '{name}' failed: {error}", place=_template_place(error, environment.loader)
        ) from None
    file = environment.loader.files[known]
    return Rendered(text, _label(name, file), file)


def exists(path: str, folders: Sequence[Path] = ()) -> bool:
    """Whether a template stands at ``path`` below one of the folders or the house's."""
    return any((root / path).is_file() for root in (*folders, house_templates()))


def _label(name: str, file: Path) -> str:
    house = house_templates().resolve()
    if file.is_relative_to(house):
        return f"{name} (templates/{file.relative_to(house).as_posix()})"
    return f"{file.name} ({file})"


def _find(loader: Any, kind: str, name: str, folders: Sequence[Path], place: Place | None) -> str:
    suffix = _SUFFIX[kind]
    parts = Path(name).parts
    if not name or Path(name).is_absolute() or ".." in parts:
        raise SpecError(
            f"'{name}' is no template",
            place=place,
            expected="a house style, or a path below the spec's folder or one of `templates:`",
        )
    for root in (*folders, house_templates()):
        for candidate in (f"{kind}/{name}{suffix}", f"{name}{suffix}", name):
            if (candidate != name or name.endswith(".j2")) and loader.locate(candidate, [root]) is not None:
                return candidate
    known = list(house_names(kind))
    for folder in folders:
        known += [path.relative_to(folder).as_posix() for path in folder.glob(f"*{suffix}")][:20]
    raise SpecError(f"there is no template '{name}'", place=place, hint=did_you_mean(name, known))


def _bounded(parts: Any) -> str:
    collected: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > MAX_OUTPUT:
            raise SpecError(f"it writes more than {MAX_OUTPUT >> 20} MiB")
        collected.append(part)
    return "".join(collected)


def _template_place(error: BaseException, loader: Any) -> Place | None:
    """The innermost line of a template on the way to the error: Jinja2 rewrites tracebacks to template lines."""
    files = {str(file) for file in loader.files.values()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return Place(Path(frame.filename), frame.lineno)
    return None


@lru_cache(maxsize=8)
def _environment(roots: tuple[Path, ...]) -> Any:
    """Compiled templates are kept for the next model, until their files change."""
    import jinja2
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Loader(jinja2.BaseLoader):
        """Files below the roots, with links followed only where they stay inside."""

        def __init__(self) -> None:
            self.files: dict[str, Path] = {}

        def locate(self, name: str, within: Sequence[Path] = roots) -> Path | None:
            for root in within:
                if (root / name).is_file():  # before the links on the way are followed: most candidates are not there
                    real, target = root.resolve(), (root / name).resolve()
                    if target.is_relative_to(real):
                        return target
            return None

        def get_source(self, environment: Any, template: str) -> tuple[str, str, Callable[[], bool]]:
            file = self.locate(template)
            if file is None:
                raise jinja2.TemplateNotFound(template)
            found = file.stat()
            if found.st_size > MAX_SOURCE:
                raise SpecError(f"a template is larger than {MAX_SOURCE >> 20} MiB", place=Place(file))
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise SpecError("a template is not UTF-8 text", place=Place(file)) from None
            self.files[template] = file

            def is_as_it_was() -> bool:
                if self.locate(template) != file:
                    return False
                now = file.stat()
                return (now.st_mtime_ns, now.st_size, now.st_ino) == (found.st_mtime_ns, found.st_size, found.st_ino)

            return text, str(file), is_as_it_was

    class Sandbox(ImmutableSandboxedEnvironment):
        """No attribute with an underscore (Jinja2's rule), no operation that makes huge values out of small ones."""

        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "%" and isinstance(left, str):
                raise SecurityError("text formatting by % is not taken; use ~ to join")
            if operator == "**" or (operator == "*" and not (_small(left) and _small(right))):
                raise SecurityError(f"'{operator}' is only for numbers up to 10^12")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(
        loader=Loader(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # protobuf text and Python, not HTML; strings go through `quote`
    )
    environment.filters["quote"] = quote
    # Each of these makes text of any length out of a small number.
    for name in ("center", "format", "indent", "wordwrap", "pprint"):
        environment.filters.pop(name, None)
    return environment


def _small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 10**12
