from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritonforge.errors import SpecError
from tritonforge.repository import tree
from tritonforge.repository.pbtxt import descriptor, is_map, parse, repeated, to_text
from tritonforge.repository.reading import from_message, read

from .making import layer, made, place

DIRECT, UTILIZATION = "sequence_batching.direct", "minimum_slot_utilization"
QUEUES = "priority_queue_policy"


def value_of(field: Any) -> Any:
    """A value for a field that is no message, different from protobuf's default."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].name
    return {field.TYPE_STRING: "text", field.TYPE_BOOL: True, field.TYPE_FLOAT: 0.5, field.TYPE_DOUBLE: 0.5}.get(
        field.type, 3
    )


def one(field: Any, inner: Any) -> Any:
    if is_map(field):
        return {"3": inner}
    return [inner] if repeated(field) else inner


def layers_for_every_field(kind: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """For every field path one layer that sets just that field."""
    for field in kind.fields:
        message = field.message_type
        if is_map(field):
            value = message.fields_by_name["value"]
            message = value.message_type
            if message is None:
                yield field.name, {field.name: {"3": value_of(value)}}
                continue
        if message is None:
            yield field.name, {field.name: one(field, value_of(field))}
            continue
        yield field.name, {field.name: one(field, {})}
        if message.full_name not in above:
            for path, inner in layers_for_every_field(message, (*above, message.full_name)):
                yield f"{field.name}.{path}", {field.name: one(field, inner)}


EVERY = dict(layers_for_every_field(descriptor()))


def test_there_is_a_layer_for_every_field() -> None:
    from tritonforge.repository.schema import schema

    assert EVERY.keys() == schema().baseline | schema().fields.keys()


def inner_values(value: Any) -> list[Any]:
    if hasattr(value, "values"):
        return list(value.values())
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else [value]


@pytest.mark.parametrize("path", EVERY)
def test_every_field_can_be_said(path: str) -> None:
    node = read(EVERY[path], "spec", place)
    message = tree.to_message(node)
    found: Any = [message]
    for name in path.split("."):
        values = [getattr(item, name) for item in found if name in {field.name for field, _ in item.ListFields()}]
        found = [inner for value in values for inner in inner_values(value)]
    # The only value of these enums is protobuf's default, which cannot be told from nothing.
    assert found or path in ("batch_output.kind", "instance_group.secondary_devices.kind")
    assert parse(to_text(message)) == message
    assert tree.to_message(from_message(message, "again")) == message
    assert [item.source.label for _, item in tree.leaves(node)] == ["spec"]


def test_mappings_merge_and_inputs_merge_by_name() -> None:
    base = read(
        {"parameters": {"a": "1", "b": "2"}, "input": [{"name": "X", "dims": [1]}, {"name": "Z"}]}, "base", place
    )
    over = read({"parameters": {"b": "3"}, "input": [{"name": "Z", "optional": True}, {"name": "W"}]}, "over", place)
    assert tree.plain(tree.merge(base, over)) == {
        "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "3"}},
        "input": [{"name": "X", "dims": [1]}, {"name": "Z", "optional": True}, {"name": "W"}],
    }


def test_other_lists_are_replaced() -> None:
    base = read({"instance_group": [{"count": 1}, {"count": 2}]}, "base", place)
    over = read({"instance_group": [{"count": 3}]}, "over", place)
    assert tree.plain(tree.merge(base, over)) == {"instance_group": [{"count": 3}]}


def test_null_removes() -> None:
    base = read({"dynamic_batching": {"preserve_ordering": True}, "parameters": {"a": "1", "b": "2"}}, "base", place)
    over = read({"dynamic_batching": None, "parameters": {"a": None}, "runtime": None}, "over", place)
    assert tree.plain(tree.merge(base, over)) == {"parameters": {"b": {"string_value": "2"}}}


def test_of_a_choice_the_last_one_said_stays() -> None:
    base = read({"dynamic_batching": {}, "version_policy": {"all": {}}}, "base", place)
    over = read({"sequence_batching": {"direct": {}}, "version_policy": {"latest": {"num_versions": 2}}}, "over", place)
    assert tree.plain(tree.merge(base, over)) == {
        "sequence_batching": {"direct": {}},
        "version_policy": {"latest": {"num_versions": 2}},
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"parameters": {"a": True, "b": 2, "c": "x", "d": {"string_value": "y"}}},
            {"a": "true", "b": "2", "c": "x", "d": "y"},
        ),
    ],
)
def test_parameters_may_be_written_without_string_value(values: Any, expected: dict[str, str]) -> None:
    message = made(values).message
    assert {key: value.string_value for key, value in message.parameters.items()} == expected


def test_what_an_environment_variable_stands_for_is_text_and_is_read_as_its_type() -> None:
    config = made({"max_batch_size": "8", "response_cache": {"enable": "true"}}).message
    assert config.max_batch_size == 8
    assert config.response_cache.enable is True


@pytest.mark.parametrize(
    ("values", "field", "message", "hint"),
    [
        ({"inputs": []}, "inputs", "no field 'inputs'", "did you mean 'input'"),
        ({"input": [{"nam": "X"}]}, "input[0].nam", "no field 'nam'", "'name'"),
        ({"optimization": {"cuda": {"graph": True}}}, "optimization.cuda.graph", "no field 'graph'", "'graphs'"),
        ({"max_batch_size": "many"}, "max_batch_size", "wrong type", None),
        ({"max_batch_size": True}, "max_batch_size", "wrong type", None),
        ({"max_batch_size": 1.5}, "max_batch_size", "wrong type", None),
        ({"max_batch_size": 2**31}, "max_batch_size", "wrong type", None),
        ({"input": {"name": "X"}}, "input", "wrong type", None),
        ({"input": ["X"]}, "input[0]", "wrong type", None),
        ({"instance_group": [{"kind": "GPU"}]}, "instance_group[0].kind", "wrong type", "KIND_GPU"),
        ({"instance_group": [{"kind": 2}]}, "instance_group[0].kind", "wrong type", None),
        ({"instance_group": [{"profile": ["0", 1]}]}, "instance_group[0].profile[1]", "wrong type", "quotes"),
        ({"instance_group": [{"profile": "0"}]}, "instance_group[0].profile", "wrong type", "profile: [0]"),
        ({"input": [{"name": "IMAGE", "data_type": "TYPE_BYTES"}]}, "input[0].data_type", "wrong type", "TYPE_STRING"),
        ({"parameters": ["a"]}, "parameters", "wrong type", None),
        ({"parameters": {"a": ["b"]}}, "parameters.a", "wrong type", None),
        ({"dynamic_batching": True}, "dynamic_batching", "wrong type", None),
        ({"response_cache": {"enable": "yes"}}, "response_cache.enable", "wrong type", None),
        ({"metric_tags": {"a": 1}}, "metric_tags.a", "wrong type", "quotes"),
        ({"sequence_batching": {"direct": {UTILIZATION: float("nan")}}}, f"{DIRECT}.{UTILIZATION}", "wrong type", None),
        ({"sequence_batching": {"direct": {UTILIZATION: 1e300}}}, f"{DIRECT}.{UTILIZATION}", "wrong type", None),
        ({"dynamic_batching": {QUEUES: {"high": {}}}}, f"dynamic_batching.{QUEUES}.high", "wrong type", None),
        ({"dynamic_batching": {}, "sequence_batching": {}}, "sequence_batching", "exclude each other", None),
        ({"version_policy": {"all": {}, "latest": {}}}, "version_policy.latest", "exclude each other", None),
        ({"input": [{"dims": [3]}]}, "input[0]", "which input", None),
    ],
)  # fmt: skip
def test_a_wrong_value_is_an_error_at_its_place(values: Any, field: str, message: str, hint: str | None) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        made(values)
    assert caught.value.place is not None
    assert caught.value.place.line == 12
    assert caught.value.place.field == field
    if hint is not None:
        assert hint in (caught.value.hint or "")


def strategy(kind: Any, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Any value of a message, in JSON form, with at most one member of each choice."""

    def scalar(field: Any) -> st.SearchStrategy[Any]:
        if field.enum_type is not None:
            return st.sampled_from([item.name for item in field.enum_type.values])
        if field.type == field.TYPE_STRING:
            return st.text(st.characters(codec="utf-8"), max_size=8)
        if field.type == field.TYPE_BOOL:
            return st.booleans()
        if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        unsigned = field.type in (field.TYPE_UINT32, field.TYPE_UINT64)
        bits = 64 if field.type in (field.TYPE_INT64, field.TYPE_UINT64) else 32
        return st.integers(0, 2**bits - 1) if unsigned else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def single(field: Any) -> st.SearchStrategy[Any]:
        return strategy(field.message_type, depth + 1) if field.message_type is not None else scalar(field)

    def any_of(field: Any) -> st.SearchStrategy[Any]:
        if is_map(field):
            keys, values = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return st.dictionaries(scalar(keys).map(str), single(values), max_size=2)
        return st.lists(single(field), max_size=2) if repeated(field) else single(field)

    fields = [field for field in kind.fields if depth < 4 or field.message_type is None]

    def alone(values: dict[str, Any]) -> dict[str, Any]:
        chosen: set[str] = set()
        kept = {}
        for field in fields:
            if field.name not in values:
                continue
            if field.containing_oneof is not None:
                if field.containing_oneof.name in chosen:
                    continue
                chosen.add(field.containing_oneof.name)
            kept[field.name] = values[field.name]
        return kept

    if not fields:
        return st.just({})
    some = st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)
    return some.flatmap(lambda taken: st.fixed_dictionaries({field.name: any_of(field) for field in taken})).map(alone)


@settings(deadline=None, max_examples=150)
@given(strategy(descriptor()))
def test_any_layer_arrives_whole_and_its_text_is_read_back(values: dict[str, Any]) -> None:
    message = tree.to_message(read(values, "spec", place))
    text = to_text(message)
    again = parse(text)
    assert again == message
    assert to_text(again) == text
    assert tree.to_message(from_message(message, "again")) == message


@settings(deadline=None, max_examples=60)
@given(strategy(descriptor()), strategy(descriptor()))
def test_a_layer_over_itself_changes_nothing_and_the_last_one_wins(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    for values in (first, second):
        for side in ("input", "output"):
            # Tensors are known by their names, so that a layer with two of one name has no meaning.
            values.pop(side, None)
    one_layer, other = (layer(values) for values in (first, second))
    base = read(one_layer.values, "base", place)
    over = read(other.values, "over", place)
    assert tree.plain(tree.merge(base, base)) == tree.plain(base)
    merged = tree.plain(tree.merge(base, over))
    for name, value in second.items():
        if not isinstance(value, dict):
            assert merged[name] == tree.plain(over)[name]
