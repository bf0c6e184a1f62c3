"""Config values with the origin of each: layers laid over each other, and turned into a message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import Place, SpecError
from tritonforge.repository.pbtxt import descriptor, is_map, new, repeated
from tritonforge.repository.schema import Path_

Value = Any
"""A mapping or a list of nodes, or a plain scalar; None removes."""

_BY_NAME: Final = ("inference.ModelConfig.input", "inference.ModelConfig.output")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from: what said it, and the line where that stands, if it stands somewhere."""

    label: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its source."""

    value: Value
    source: Source


def to_message(node: Node) -> Any:
    """The message that a tree stands for."""
    from google.protobuf import json_format

    message = new()
    try:
        json_format.ParseDict(plain(node), message)
    except json_format.ParseError as error:
        raise SpecError(f"the config cannot be written: {error}", place=node.source.place) from None
    return message


def plain(node: Node) -> Any:
    """The values without their sources."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


def find(node: Node, path: Path_) -> Node:
    """The node at ``path``, or its nearest parent."""
    for part in path:
        inner = _child(node, part)
        if inner is None:
            return node
        node = inner
    return node


def get(node: Node, path: Path_) -> Node | None:
    """The node at ``path``, if there is one."""
    for part in path:
        inner = _child(node, part)
        if inner is None:
            return None
        node = inner
    return node


def _child(node: Node, part: str | int) -> Node | None:
    found: Node | None = None
    if isinstance(node.value, dict):
        found = node.value.get(part)
    elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
        found = node.value[part]
    return found


def leaves(node: Node, path: Path_ = ()) -> Iterator[tuple[Path_, Node]]:
    """Every value by path; a list of plain values is one, and so is an empty mapping."""
    if isinstance(node.value, dict) and node.value:
        for key, item in node.value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(node.value, list) and any(isinstance(item.value, dict) for item in node.value):
        for index, item in enumerate(node.value):
            yield from leaves(item, (*path, index))
    elif path:
        yield path, node


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``: mappings merge, inputs and outputs merge by name, other lists are replaced.

    Of a choice (a protobuf oneof, such as the schedulers) the one that is said last stays alone.
    """
    return _merge_message(descriptor(), base, over)


def _merge_message(kind: Any, base: Node, over: Node) -> Node:
    merged = dict(base.value)
    for name, item in over.value.items():
        field = kind.fields_by_name[name]
        if field.containing_oneof is not None and item.value is not None:
            for other in field.containing_oneof.fields:
                if other.name != name:
                    merged.pop(other.name, None)
        if item.value is None:
            merged.pop(name, None)
        elif name not in merged:
            merged[name] = _without_nulls(item)
        else:
            merged[name] = _merge_field(field, merged[name], item)
    return Node(merged, over.source)


def _merge_field(field: Any, base: Node, over: Node) -> Node:
    if is_map(field):
        merged = dict(base.value)
        inner = field.message_type.fields_by_name["value"].message_type
        for key, item in over.value.items():
            if item.value is None:
                merged.pop(key, None)
            elif inner is not None and key in merged:
                merged[key] = _merge_message(inner, merged[key], item)
            else:
                merged[key] = _without_nulls(item)
        return Node(merged, over.source)
    if repeated(field):
        return _merge_by_name(field, base, over) if field.full_name in _BY_NAME else over
    if field.message_type is not None:
        return _merge_message(field.message_type, base, over)
    return over


def _merge_by_name(field: Any, base: Node, over: Node) -> Node:
    merged: list[Node] = list(base.value)
    for item in over.value:
        name = item.value.get("name")
        if name is None:
            what = field.name
            raise SpecError(
                f"which {what}? An entry of `{what}` says it by `name`",
                place=item.source.place,
                expected="name: one of " + ", ".join(entry.value["name"].value for entry in base.value),
            )
        for index, entry in enumerate(merged):
            if entry.value["name"].value == name.value:
                merged[index] = _merge_message(field.message_type, entry, item)
                break
        else:
            merged.append(_without_nulls(item))
    return Node(merged, over.source)


def _without_nulls(node: Node) -> Node:
    if isinstance(node.value, dict):
        kept = {key: _without_nulls(item) for key, item in node.value.items() if item.value is not None}
        return Node(kept, node.source)
    return node
