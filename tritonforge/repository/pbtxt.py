"""``config.pbtxt`` text ⇄ Triton's ``ModelConfig``.

The message class is the one that ships with ``tritonclient``; reading and writing are ``google.protobuf.text_format``,
so that a file means here what it means to the server.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks, Place, SpecError, did_you_mean

ModelConfig = Any
"""A ``tritonclient.grpc.model_config_pb2.ModelConfig``; the class is made at run time, so types cannot name it."""

_NO_FIELD: Final = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_NO_VALUE: Final = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')
NO_BYTES_TYPE: Final = "a config calls bytes and strings TYPE_STRING; TYPE_BYTES does not exist there"


@cache
def _module() -> Any:
    # Imported late: it takes longer than the whole of `tritonforge --help`.
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise EnvironmentLacks(
            "Triton's config classes cannot be imported", found=str(error), hint="pip install 'tritonclient[grpc]'"
        ) from None
    return model_config_pb2


def new() -> ModelConfig:
    """An empty ``ModelConfig``."""
    return _module().ModelConfig()


def descriptor() -> Any:
    """The protobuf descriptor of ``ModelConfig``."""
    return _module().ModelConfig.DESCRIPTOR


def repeated(field: Any) -> bool:
    """Whether a field's descriptor is of a list or a map."""
    known = getattr(field, "is_repeated", None)  # protobuf 6.31 and later, which deprecate `label`
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def is_map(field: Any) -> bool:
    """Whether a field's descriptor is of a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def parse(text: str, file: Path | None = None) -> ModelConfig:
    """Read the text of a ``config.pbtxt``; ``file`` is only named in places.

    Raises:
        SpecError: it is no valid text of a ``ModelConfig``, with the line and, for an unknown word, the nearest known.
    """
    from google.protobuf import text_format

    message = new()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _explain(error, text, file) from None
    return message


def to_text(message: ModelConfig) -> str:
    """The text of a message: fields by number, map entries by key; equal messages give equal text."""
    from google.protobuf import text_format

    text: str = text_format.MessageToString(message, as_utf8=True, use_short_repeated_primitives=True)
    return text


def quote(text: str) -> str:
    """``text`` as a string of the protobuf text format, with its quotes."""
    from google.protobuf import text_encoding

    return '"' + text_encoding.CEscape(text.encode(), as_utf8=True) + '"'


def _explain(error: Any, text: str, file: Path | None) -> SpecError:
    line = error.GetLine()
    message = re.sub(r"^\d+:\d+ : ", "", str(error))
    found = None
    if line is not None and 0 < line <= len(text.splitlines()):
        found = text.splitlines()[line - 1].strip()[:200]
    place = Place(file, line)
    pool = descriptor().file.pool
    unknown = _NO_FIELD.search(message)
    if unknown is not None:
        kind = pool.FindMessageTypeByName(unknown.group(1))
        hint = did_you_mean(unknown.group(2), (field.name for field in kind.fields))
        return SpecError(f"{kind.name} has no field '{unknown.group(2)}'", place=place, found=found, hint=hint)
    value = _NO_VALUE.search(message)
    if value is not None:
        enum = pool.FindEnumTypeByName(value.group(1))
        hint = (
            NO_BYTES_TYPE
            if value.group(2) == "TYPE_BYTES"
            else did_you_mean(value.group(2), (v.name for v in enum.values))
        )
        return SpecError(f"{enum.name} has no value '{value.group(2)}'", place=place, found=found, hint=hint)
    return SpecError(f"this is no valid config.pbtxt: {message}", place=place, found=found)
