"""YAML read with the place of every value kept, so that an error can name its line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.errors import Place, SpecError

MAX_BYTES: Final = 8 << 20
MAX_VALUES: Final = 500_000
"""A few lines of YAML anchors can stand for billions of values."""
Path_ = tuple[str | int, ...]

_PLAIN: Final = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


@dataclass(slots=True)
class Document:
    """Plain data, and where each value of it stands.

    ``places`` is keyed by the path of keys and indices; ``aliases`` says that what stands at one path was written at
    another (a model's key that came from ``defaults``).
    """

    data: dict[str, Any]
    places: dict[Path_, Place] = field(default_factory=dict)
    aliases: dict[Path_, Path_] = field(default_factory=dict)

    def place(self, path: Path_) -> Place:
        """The place of ``path``, or of its nearest parent that was written."""
        name = dotted(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.aliases:
                path = (*self.aliases[path[:length]], *path[length:])
                break
        while True:
            if path in self.places:
                found = self.places[path]
                return Place(found.file, found.line, name or None)
            if not path:
                return Place(field=name or None)
            path = path[:-1]


def dotted(path: Path_) -> str:
    """``('models', 'a', 'input', 0)`` as ``models.a.input[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(file: Path) -> Document:
    """Read one YAML file.

    Raises:
        SpecError: it is missing, too large, no YAML, has a key twice, or is not a mapping.
    """
    try:
        if file.stat().st_size > MAX_BYTES:
            raise SpecError(f"{file.name} is larger than {MAX_BYTES >> 20} MiB", place=Place(file))
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"there is no {file.name}",
            place=Place(file),
            hint="run `tritonforge init` to write a commented example, or name another with --spec",
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{file} is a folder", place=Place(file), expected="a YAML file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{file.name} is not UTF-8 text", place=Place(file), found=str(error)) from None
    except OSError as error:
        raise SpecError(f"cannot read {file.name}: {error.strerror}", place=Place(file)) from None
    return parse(text, file)


def parse(text: str, file: Path) -> Document:
    """Parse YAML ``text``; ``file`` is only named in places."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SpecError(f"{file.name} is empty", place=Place(file), expected="a mapping with apiVersion, models, …")
        document = Document({})
        value = _value(node, (), document, file, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        conflict = _conflict(text)
        if conflict is not None:
            raise SpecError(
                f"{file.name} has an unresolved merge conflict",
                place=Place(file, conflict),
                hint=f"resolve it in {file.name}, then run the command again",
            ) from None
        raise SpecError(
            f"{file.name} is not valid YAML: {error.problem}",
            place=Place(file, None if mark is None else mark.line + 1),
            found=error.context,
        ) from None
    except yaml.YAMLError as error:
        raise SpecError(f"{file.name} is not valid YAML: {error}", place=Place(file)) from None
    except RecursionError:
        raise SpecError(f"{file.name} is nested too deeply", place=Place(file)) from None
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise SpecError(f"{file.name} is a {type(value).__name__}", place=Place(file, 1), expected="a mapping")
    document.data = value
    return document


def _conflict(text: str) -> int | None:
    """The line of git's first conflict marker."""
    lines = enumerate(text.splitlines(), 1)
    return next((number for number, line in lines if line.startswith(("<<<<<<< ", ">>>>>>> "))), None)


def _value(node: yaml.Node, path: Path_, document: Document, file: Path, loader: Any) -> Any:
    document.places[path] = Place(file, node.start_mark.line + 1)
    if len(document.places) > MAX_VALUES:
        raise SpecError(f"{file.name} has more than {MAX_VALUES} values", place=document.places[path])
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
        raise SpecError(
            "YAML tags are not taken",
            place=Place(file, node.start_mark.line + 1, dotted(path) or None),
            found=str(node.tag).replace("tag:yaml.org,2002:", "!!"),
        )
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = Place(file, key_node.start_mark.line + 1, dotted(path) or None)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise SpecError("YAML merge keys are not taken", place=place, hint="use `defaults:` or `include:`")
            key = _constructed(key_node, place, loader)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise SpecError("a key must be text", place=place, found=f"{key!r}", hint="put the key in quotes")
            name = str(key)
            if name in mapping:
                raise SpecError(f"the key '{name}' stands twice", place=place, hint="delete one of the two")
            mapping[name] = _value(value_node, (*path, name), document, file, loader)
            document.places[(*path, name)] = Place(file, key_node.start_mark.line + 1)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), document, file, loader) for index, item in enumerate(node.value)]
    value = _constructed(node, Place(file, node.start_mark.line + 1, dotted(path) or None), loader)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(
            "a number must be finite",
            place=Place(file, node.start_mark.line + 1, dotted(path) or None),
            found=node.value,
            hint="put it in quotes if the text is meant",
        )
    if value is not None and not isinstance(value, str | int | float | bool):
        # A date or a binary: YAML guesses; a spec means the text.
        return node.value
    return value


def _constructed(node: yaml.Node, place: Place, loader: Any) -> Any:
    """What YAML makes of a value; a date that is none is the text."""
    try:
        return loader.construct_object(node, deep=True)
    except ValueError:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        raise SpecError(
            "YAML reads this as a number, and cannot",
            place=place,
            found=str(node.value)[:80],
            hint="put it in quotes if the text is meant",
        ) from None


def merge(base: Document, over: Document) -> Document:
    """``over`` on top of ``base``: mappings merge, ``null`` removes, everything else replaces."""
    places = dict(base.places)
    data = _merge(base.data, over.data, (), places, over)
    places[()] = over.places.get((), base.places.get((), Place()))
    return Document(data, places)


def _merge(
    base: Mapping[str, Any], over: Mapping[str, Any], path: Path_, places: dict[Path_, Place], source: Document
) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, here, places, source)
            continue
        if value is None and key in merged:
            del merged[key]
            continue
        merged[key] = value
        _take_places(value, here, places, source)
    return merged


def _take_places(value: Any, path: Path_, places: dict[Path_, Place], source: Document) -> None:
    if path in source.places:
        places[path] = source.places[path]
    if isinstance(value, dict):
        for key, item in value.items():
            _take_places(item, (*path, key), places, source)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _take_places(item, (*path, index), places, source)
