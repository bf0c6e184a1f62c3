"""Which fields of ``config.pbtxt`` which Triton knows.

A server refuses a config with a field that its schema lacks, so a generated one holds only what the platform's
release has. The data, and how it was established, stand in ``schema_fields.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import yaml

from tritonforge.errors import SpecError
from tritonforge.repository.pbtxt import repeated

Path_ = tuple[str | int, ...]
_RELEASE: Final = re.compile(r"\d{2}\.\d{2}")


@dataclass(frozen=True, slots=True)
class SchemaField:
    """A field or the value of an enum that came after the baseline; ``at_latest``: it may be older than ``since``."""

    path: str
    since: str
    source: str
    at_latest: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of the baseline release, the later ones by dotted path, and later enum values by ``ENUM=VALUE``."""

    baseline_release: str
    baseline: frozenset[str]
    fields: dict[str, SchemaField]
    values: dict[str, SchemaField]
    servers: dict[str, str]


@dataclass(frozen=True, slots=True)
class FieldTooNew:
    """Something that is set and that a release lacks. ``since`` is ``?`` for fields newer than this tritonforge."""

    path: str
    since: str
    source: str
    at: Path_


@cache
def schema() -> Schema:
    """The data file, read once."""
    text = resources.files("tritonforge.repository").joinpath("schema_fields.yaml").read_text(encoding="utf-8")
    data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, in C

    def field(item: dict[str, Any], path: str) -> SchemaField:
        return SchemaField(path, item["since"], item["source"], bool(item.get("since_at_latest", False)))

    return Schema(
        data["baseline_release"],
        frozenset(data["baseline"]),
        {item["path"]: field(item, item["path"]) for item in data["fields"]},
        {f"{item['enum']}={item['value']}": field(item, item["value"]) for item in data["values"]},
        dict(data["servers"]),
    )


def server_version(release: str) -> str | None:
    """The server's version in a container release (``24.10`` → ``2.51.0``); None for releases not in the table."""
    return schema().servers.get(release)


def container_release(version: str) -> str | None:
    """The container release of a server's version (``2.51.0`` → ``24.10``)."""
    return next((release for release, server in schema().servers.items() if server == version), None)


def supports(path: str, release: str) -> bool:
    """Whether a release (``YY.MM``) knows the field at a dotted path such as ``model_metrics``.

    Raises:
        SpecError: no Triton knows such a field, or the release is not of that form.
    """
    known = schema()
    if path in known.baseline:
        return True
    if path not in known.fields:
        raise SpecError(f"no Triton has the config field '{path}'")
    return _number(known.fields[path].since) <= _number(release)


def unknown_fields(message: Any, release: str) -> list[FieldTooNew]:
    """Everything set in ``message`` that the Triton of ``release`` does not know, outermost fields first."""
    return list(_too_new(message, "", (), _number(release)))


def _number(release: str) -> tuple[int, int]:
    if not _RELEASE.fullmatch(release):
        raise SpecError(f"'{release}' is no container release", expected="YY.MM, such as 24.10")
    return int(release[:2]), int(release[3:])


def _too_new(message: Any, prefix: str, at: Path_, release: tuple[int, int]) -> Iterator[FieldTooNew]:
    known = schema()
    for field, value in message.ListFields():
        path, here = prefix + field.name, (*at, field.name)
        later = known.fields.get(path)
        if path not in known.baseline and later is None:
            yield FieldTooNew(path, "?", "newer than this tritonforge", here)
            continue
        if later is not None and _number(later.since) > release:
            yield FieldTooNew(path, later.since, later.source, here)
            continue
        if field.message_type is not None:
            for where, inner in _messages(field, value, here):
                yield from _too_new(inner, path + ".", where, release)
        elif field.enum_type is not None:
            enum = field.enum_type.full_name.removeprefix("inference.")
            for number in value if repeated(field) else (value,):
                name = getattr(field.enum_type.values_by_number.get(number), "name", number)
                item = known.values.get(f"{enum}={name}")
                if item is not None and _number(item.since) > release:
                    yield FieldTooNew(f"{path}: {name}", item.since, item.source, here)


def _messages(field: Any, value: Any, at: Path_) -> Iterator[tuple[Path_, Any]]:
    if field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            for key in value:
                yield (*at, str(key)), value[key]
    elif repeated(field):
        for index, item in enumerate(value):
            yield (*at, index), item
    else:
        yield at, value
