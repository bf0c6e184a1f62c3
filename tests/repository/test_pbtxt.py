from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import SpecError
from tritonforge.repository.pbtxt import new, parse, quote, to_text

TEXT = """
name: "m" max_batch_size: 8 backend: "python"
input { name: "X" data_type: TYPE_FP32 dims: [ -1, 3 ] reshape { shape: [ ] } }
parameters { key: "b" value { string_value: "quote \\" and ü" } }
parameters { key: "a" value { string_value: "line\\nbreak" } }
"""


def test_text_is_the_same_for_equal_messages_whatever_the_order() -> None:
    first = parse(TEXT)
    second = new()
    for key in sorted(first.parameters, reverse=True):
        second.parameters[key].CopyFrom(first.parameters[key])
    second.MergeFrom(first.__class__(name=first.name, max_batch_size=8, backend="python", input=first.input))
    assert to_text(first) == to_text(second)
    assert parse(to_text(first)) == first
    assert to_text(first).index('key: "a"') < to_text(first).index('key: "b"')


def test_the_text_begins_with_the_name_and_holds_no_comment() -> None:
    assert to_text(parse(TEXT)).startswith('name: "m"\n')
    assert "#" not in to_text(parse(TEXT))


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ('name: "m"\ninptu { }', 2, "ModelConfig has no field 'inptu'", "did you mean 'input'"),
        ("input {\n  dimz: 1\n}", 2, "ModelInput has no field 'dimz'", "did you mean 'dims'"),
        ("input { data_type: TYPE_BYTES }", 1, "has no value 'TYPE_BYTES'", "TYPE_STRING"),
        ("input { data_type: TYPE_FLOAT32 }", 1, "has no value 'TYPE_FLOAT32'", "TYPE_FP32"),
        ("name: 3", 1, "no valid config.pbtxt", None),
        ('name: "a"\nname: "b"', 2, "no valid config.pbtxt", None),
        ("input {", None, "no valid config.pbtxt", None),
    ],
)
def test_an_error_names_the_line_and_the_nearest_word(
    text: str, line: int | None, message: str, hint: str | None
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, Path("m/config.pbtxt"))
    assert caught.value.place is not None
    assert caught.value.place.file == Path("m/config.pbtxt")
    if line is not None:
        assert caught.value.place.line == line
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["plain", 'a "quote"', "back\\slash", "line\nbreak", "ünïcödé 漢字", "\x01\x7f", ""])
def test_a_quoted_text_is_read_back(text: str) -> None:
    assert parse(f"name: {quote(text)}").name == text
