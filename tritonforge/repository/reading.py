"""Config values read by the schema, each with its place.

A layer is written in protobuf's JSON form with protobuf's field names; enums go by name. Reading checks every value
against the descriptor, so that an error names the line where the value stands. A ``null`` removes what lies below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import Place, SpecError, did_you_mean
from tritonforge.repository.pbtxt import NO_BYTES_TYPE, descriptor, is_map, repeated
from tritonforge.repository.schema import Path_, schema
from tritonforge.repository.tree import Node, Source, Value

_INTEGERS: Final = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
_PARAMETER: Final = "inference.ModelParameter"

PlaceOf = Callable[[Path_], Place | None]


def read(values: Mapping[str, Any], label: str, place: PlaceOf) -> Node:
    """Check a layer of values against ``ModelConfig``.

    Raises:
        SpecError: an unknown field, or a value of the wrong type, with its place.
    """
    return _Reader(label, place).message(descriptor(), values, ())


def from_message(message: Any, label: str, place: Place | None = None) -> Node:
    """What is set in a message, as one layer."""
    from google.protobuf import json_format

    plain = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return read(plain, label, lambda _: place)


@dataclass(frozen=True, slots=True)
class _Reader:
    label: str
    place: PlaceOf

    def node(self, value: Value, path: Path_) -> Node:
        return Node(value, Source(self.label, self.place(path)))

    def wrong(self, path: Path_, expected: str, found: Any, hint: str | None = None) -> SpecError:
        name = next((part for part in reversed(path) if isinstance(part, str)), "config")
        return SpecError(
            f"`{name}` has a value of the wrong type",
            place=self.place(path),
            expected=expected,
            found=repr(found)[:200],
            hint=hint,
        )

    def message(self, kind: Any, values: Any, path: Path_) -> Node:
        if kind.full_name == _PARAMETER and not isinstance(values, Mapping | None | list):
            # Triton's parameters hold one string each; writing it without the wrapping message is what everyone tries.
            text = str(values).lower() if isinstance(values, bool) else str(values)
            return self.node({"string_value": self.node(text, path)}, path)
        if not isinstance(values, Mapping):
            known = ", ".join(field.name for field in kind.fields)
            raise self.wrong(path, f"a mapping with fields of {kind.name}: {known}", values)
        tree: dict[str, Node] = {}
        chosen: dict[str, str] = {}
        for name, value in values.items():
            here = (*path, str(name))
            field = kind.fields_by_name.get(str(name))
            if field is None:
                raise self.unknown(kind, here)
            oneof = field.containing_oneof
            if oneof is not None and value is not None:
                if oneof.name in chosen:
                    raise SpecError(
                        f"`{chosen[oneof.name]}` and `{name}` exclude each other",
                        place=self.place(here),
                        expected="one of " + ", ".join(other.name for other in oneof.fields),
                    )
                chosen[oneof.name] = str(name)
            tree[field.name] = self.node(None, here) if value is None else self.field(field, value, here)
        return self.node(tree, path)

    def unknown(self, kind: Any, path: Path_) -> SpecError:
        name = str(path[-1])
        hint = did_you_mean(name, (field.name for field in kind.fields))
        dotted = ".".join(part for part in path if isinstance(part, str))
        later = schema().fields.get(dotted)
        if later is not None:
            hint = (
                f"Triton has it since {later.since}; the installed tritonclient is older: pip install -U tritonclient"
            )
        return SpecError(f"{kind.name} has no field '{name}'", place=self.place(path), hint=hint)

    def field(self, field: Any, value: Any, path: Path_) -> Node:
        if is_map(field):
            return self.mapping(field, value, path)
        if repeated(field):
            if not isinstance(value, list | tuple):
                raise self.wrong(path, "a list", value, f"write `{field.name}: [{value}]`" if _scalar(value) else None)
            return self.node([self.one(field, item, (*path, index)) for index, item in enumerate(value)], path)
        return self.one(field, value, path)

    def mapping(self, field: Any, value: Any, path: Path_) -> Node:
        if not isinstance(value, Mapping):
            raise self.wrong(path, "a mapping of names to values", value)
        keys, items = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        tree: dict[str, Node] = {}
        for key, item in value.items():
            here = (*path, str(key))
            if keys.type != keys.TYPE_STRING:
                self.one(keys, str(key), here)
            tree[str(key)] = self.node(None, here) if item is None else self.one(items, item, here)
        return self.node(tree, path)

    def one(self, field: Any, value: Any, path: Path_) -> Node:
        if field.message_type is not None:
            return self.message(field.message_type, value, path)
        if field.enum_type is not None:
            return self.node(self.enum(field.enum_type, value, path), path)
        return self.node(self.scalar(field, value, path), path)

    def enum(self, kind: Any, value: Any, path: Path_) -> str:
        names = [item.name for item in kind.values]
        if not isinstance(value, str) or value not in names:
            if value in ("TYPE_BYTES", "BYTES"):
                hint: str | None = NO_BYTES_TYPE
            else:
                hint = did_you_mean(str(value), names)
            raise self.wrong(path, "one of " + ", ".join(names), value, hint)
        return value

    def scalar(self, field: Any, value: Any, path: Path_) -> Any:
        if field.type == field.TYPE_STRING:
            if not isinstance(value, str):
                raise self.wrong(path, "text", value, "put it in quotes" if _scalar(value) else None)
            return value
        if field.type == field.TYPE_BOOL:
            if isinstance(value, bool):
                return value
            if value in ("true", "false"):  # what a variable of the environment stands for is text
                return value == "true"
            raise self.wrong(path, "true or false", value)
        if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            return self.number(field, value, path)
        return self.integer(field, value, path)

    def number(self, field: Any, value: Any, path: Path_) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        limit = 3.4028234663852886e38 if field.cpp_type == field.CPPTYPE_FLOAT else math.inf
        if not math.isfinite(number) or abs(number) > limit:
            raise self.wrong(path, "a finite number", value)
        return number

    def integer(self, field: Any, value: Any, path: Path_) -> int:
        kind = {field.CPPTYPE_INT32: "int32", field.CPPTYPE_UINT32: "uint32", field.CPPTYPE_INT64: "int64"}
        name = kind.get(field.cpp_type, "uint64")
        low, high = _INTEGERS[name]
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,20}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(path, "a whole number", value)
        if not low <= value <= high:
            raise self.wrong(path, f"a whole number from {low} to {high} ({name})", value)
        return value


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
