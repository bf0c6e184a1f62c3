"""``forge.yaml`` with its includes, overlays, defaults and environment → :class:`ForgeSpec`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tritonforge.errors import ForgeError, Place, SpecError, did_you_mean
from tritonforge.spec.document import Document, Path_, dotted, merge, read
from tritonforge.spec.models import EnsembleSpec, ForgeSpec, GateSpec, ModelSpec, PlatformSpec
from tritonforge.spec.strict import field_docs
from tritonforge.spec.targets.server import ServerTarget

_VARIABLE: Final = re.compile(r"\$(\$)?\{([^}]*)\}")
_NOT_INTERPOLATED: Final = ("env", "include", "apiVersion")


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A checked spec, the folder that its paths are relative to, and the place of every value."""

    spec: ForgeSpec
    file: Path
    document: Document

    @property
    def folder(self) -> Path:
        """The folder of ``forge.yaml``."""
        return self.file.parent

    def place(self, *path: str | int) -> Place:
        """Where a field of the spec was written."""
        return self.document.place(path)


def load(file: Path, *, overlays: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> LoadedSpec:
    """Read, merge, interpolate and check a spec.

    Raises:
        SpecError: with the file, the line and the field of the first thing that is wrong.
    """
    file = file.resolve()
    if file.is_dir():
        file = file / "forge.yaml"
    document = _with_includes(file, ())
    for overlay in overlays:
        document = merge(document, _with_includes(overlay.resolve(), ()))
    document.data.pop("include", None)
    _interpolate(document, os.environ if environ is None else environ)
    _lay_defaults(document)
    return checked(document, file)


def checked(document: Document, file: Path) -> LoadedSpec:
    """Check a document, also one that was never written; its paths are relative to the folder of ``file``.

    Raises:
        SpecError: with the place of the first thing that is wrong.
    """
    loaded = LoadedSpec(_checked(document), file, document)
    _check_references(loaded)
    return loaded


def _with_includes(file: Path, above: tuple[Path, ...]) -> Document:
    if file in above:
        chain = " → ".join(path.name for path in (*above[above.index(file) :], file))
        raise SpecError("specs include each other in a circle", place=Place(above[-1], None, "include"), found=chain)
    document = read(file)
    includes = document.data.get("include", [])
    if not isinstance(includes, list) or not all(isinstance(item, str) for item in includes):
        raise SpecError("`include` is a list of paths", place=document.place(("include",)))
    base: Document | None = None
    for index, item in enumerate(includes):
        target = (file.parent / item).resolve()
        if not target.is_file():
            raise SpecError("an included file is missing", place=document.place(("include", index)), found=str(target))
        part = _with_includes(target, (*above, file))
        base = part if base is None else merge(base, part)
    return document if base is None else merge(base, document)


def _interpolate(document: Document, environ: Mapping[str, str]) -> None:
    declared = document.data.get("env") or {}
    if not isinstance(declared, dict):
        raise SpecError("`env` is a mapping of names", place=document.place(("env",)))

    for name, stated in declared.items():
        if not isinstance(stated, dict | None):
            raise SpecError(
                f"what `env` says about '{name}' is no mapping",
                place=document.place(("env", name)),
                expected=f"`{name}: {{default: TEXT}}`, or `{name}: {{}}` where it must be set",
                found=repr(stated)[:200],
            )

    def resolve(text: str, path: Path_) -> str:
        def one(match: re.Match[str]) -> str:
            if match.group(1):
                return match.group(0)[1:]
            name = match.group(2)
            if name not in declared:
                raise SpecError(
                    f"the variable '{name}' is not declared",
                    place=document.place(path),
                    found=match.group(0),
                    hint=f"add `env: {{{name}: {{}}}}` to the spec, or write $${{{name}}} for the text itself",
                )
            value = environ.get(name, (declared[name] or {}).get("default"))
            if value is None:
                raise SpecError(
                    f"the environment variable '{name}' is not set and has no default",
                    place=document.place(path),
                    hint=f"set {name}, or give it a default under `env:`",
                )
            return str(value)

        return _VARIABLE.sub(one, text)

    def walk(value: Any, path: Path_) -> Any:
        if isinstance(value, str):
            return resolve(value, path) if "${" in value else value
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        return value

    for key, value in document.data.items():
        if key not in _NOT_INTERPOLATED:
            document.data[key] = walk(value, (key,))


def _lay_defaults(document: Document) -> None:
    """Lay ``defaults.model`` under every model, likewise ensembles and gates; places of defaults stay theirs."""
    defaults = document.data.get("defaults")
    if not isinstance(defaults, dict):
        return
    for kind, plural in (("model", "models"), ("ensemble", "ensembles"), ("gate", "gates")):
        base, members = defaults.get(kind), document.data.get(plural)
        if not isinstance(base, dict) or not base or not isinstance(members, dict):
            continue
        for name, member in members.items():
            if isinstance(member, dict):
                members[name] = _under(base, member, ("defaults", kind), (plural, name), document)


def _under(
    base: dict[str, Any], over: dict[str, Any], source: Path_, target: Path_, document: Document
) -> dict[str, Any]:
    merged = dict(over)
    for key, value in base.items():
        if key not in merged:
            merged[key] = value
            document.aliases[(*target, key)] = (*source, key)
        elif isinstance(value, dict) and isinstance(merged[key], dict):
            merged[key] = _under(value, merged[key], (*source, key), (*target, key), document)
        elif merged[key] is None:
            del merged[key]
    return merged


def _checked(document: Document) -> ForgeSpec:
    try:
        return ForgeSpec.model_validate(document.data)
    except ValidationError as failed:
        located = [(error, _real_path(error, document.data)) for error in failed.errors()]
        # Of a field that takes several forms every form complains: what lies deeper is what was meant.
        paths = [path for _, path in located]
        errors = [
            _explain(error, path, document)
            for error, path in located
            if not any(len(other) > len(path) and other[: len(path)] == path for other in paths)
        ]
    # Unknown keys first: they most often cause the others (a misspelt `source` is also a missing one).
    errors.sort(key=lambda error: not error.message.startswith("unknown key"))
    first = errors[0]
    rest = [f"also: {error.place}: {error.message}" for error in errors[1:4]]
    if len(errors) > 4:
        rest.append(f"and {len(errors) - 4} more")
    raise SpecError(
        first.message, place=first.place, expected=first.expected, found=first.found, hint=first.hint, details=rest
    )


def _explain(error: Any, path: Path_, document: Document) -> ForgeError:
    place = document.place(path)
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        return SpecError(f"unknown key '{path[-1]}'", place=place, hint=did_you_mean(str(path[-1]), known))
    if kind == "missing":
        return SpecError(
            f"'{error['loc'][-1]}' is missing", place=document.place(path[:-1]), expected=_field_help(path)
        )
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        field = str(error["ctx"]["discriminator"]).strip("'")
        found = None if kind.endswith("not_found") else repr(error["ctx"]["tag"])
        expected = error["ctx"].get("expected_tags") or "it says which of several kinds this is"
        return SpecError(
            f"`{field}` is " + ("missing" if found is None else "unknown"), place=place, expected=expected, found=found
        )
    if kind == "string_pattern_mismatch":
        return SpecError(
            "this name or text is not allowed",
            place=place,
            expected=f"text like {error['ctx']['pattern']}",
            found=repr(error["input"]),
        )
    if kind == "value_error":
        return SpecError(message.removeprefix("Value error, "), place=place)
    unquoted = kind == "string_type" and isinstance(error["input"], bool | int | float)
    hint = "put it in quotes: YAML reads it as something else than text" if unquoted else None
    return SpecError(message, place=place, found=repr(error["input"])[:200], hint=hint)


def _real_path(error: Any, data: Any) -> Path_:
    """Pydantic's location without the names of union members and the like, which are in no file."""
    loc: Sequence[str | int] = error["loc"]
    path: list[str | int] = []
    value = data
    for index, part in enumerate(loc):
        if isinstance(value, dict) and str(part) in value:
            value = value[str(part)]
            path.append(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
        elif index == len(loc) - 1 and isinstance(value, dict) and error["type"] == "missing":
            path.append(part)
    return tuple(path)


def _classes(path: Path_) -> Iterator[type[BaseModel]]:
    """The models that describe the mapping at ``path``."""
    found: list[Any] = [ForgeSpec]
    for part in path:
        found = [inner for item in found for inner in _step(item, part)]
    for item in found:
        yield from (model for model in _flatten(item) if isinstance(model, type) and issubclass(model, BaseModel))


def _flatten(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        for inner in get_args(annotation):
            yield from _flatten(inner)
    elif hasattr(annotation, "__metadata__"):
        yield from _flatten(annotation.__origin__)
    else:
        yield annotation


def _step(annotation: Any, part: str | int) -> Iterator[Any]:
    for item in _flatten(annotation):
        if isinstance(item, type) and issubclass(item, BaseModel):
            field = item.model_fields.get(str(part))
            if field is not None:
                yield field.annotation
        elif get_origin(item) is dict:
            yield get_args(item)[1]
        elif get_origin(item) is list:
            yield get_args(item)[0]


def _known_keys(path: Path_) -> set[str]:
    return {name for model in _classes(path) for name in model.model_fields}


def _field_help(path: Path_) -> str | None:
    for model in _classes(path[:-1]):
        text = field_docs(model).get(str(path[-1]))
        if text:
            return text.split("\n")[0]
    return None


def _check_references(loaded: LoadedSpec) -> None:
    """Names that point at other parts of the spec must exist there."""
    spec = loaded.spec
    servables = spec.servables()

    def known(value: str, names: Mapping[str, object], what: str, *path: str | int) -> None:
        if value not in names:
            raise SpecError(f"there is no {what} '{value}'", place=loaded.place(*path), hint=did_you_mean(value, names))

    check: Callable[..., None] = known
    for plural, members in (("models", spec.models), ("ensembles", spec.ensembles)):
        for name, member in members.items():
            for index, platform in enumerate(member.only or ()):
                check(platform, spec.platforms, "platform", plural, name, "only", index)
            for platform in member.platforms:
                check(platform, spec.platforms, "platform", plural, name, "platforms", platform)
    for name, ensemble in spec.ensembles.items():
        for index, step in enumerate(ensemble.steps):
            check(step.model, servables, "model", "ensembles", name, "steps", index, "model")
    for name, gate in spec.gates.items():
        check(gate.model, servables, "model", "gates", name, "model")
        for index, platform in enumerate(gate.platforms or ()):
            check(platform, spec.platforms, "platform", "gates", name, "platforms", index)
    for name, target in spec.targets.items():
        if target.platform is not None:
            check(target.platform, spec.platforms, "platform", "targets", name, "platform")
        for index, gate_name in enumerate(target.gates or ()):
            check(gate_name, spec.gates, "gate", "targets", name, "gates", index)
        if isinstance(target, ServerTarget):
            check(target.connection, spec.connections, "connection", "targets", name, "connection")
    for path in spec.templates:
        if not (loaded.folder / path).is_dir():
            raise SpecError("a template folder is missing", place=loaded.place("templates"), found=path)


__all__ = [
    "EnsembleSpec",
    "ForgeSpec",
    "GateSpec",
    "LoadedSpec",
    "ModelSpec",
    "PlatformSpec",
    "checked",
    "dotted",
    "load",
]
