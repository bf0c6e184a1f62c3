from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tritonforge.errors import SpecError
from tritonforge.repository.pbtxt import descriptor, is_map, parse
from tritonforge.repository.schema import container_release, schema, server_version, supports, unknown_fields


def paths(kind: Any, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    for field in kind.fields:
        yield prefix + field.name
        inner = field.message_type
        if inner is not None and is_map(field):
            inner = inner.fields_by_name["value"].message_type
        if inner is not None and inner.full_name not in above:
            yield from paths(inner, f"{prefix}{field.name}.", (*above, inner.full_name))


def test_every_field_of_the_data_exists_and_every_field_is_in_the_data() -> None:
    known = schema()
    assert set(paths(descriptor())) == known.baseline | known.fields.keys()


def test_every_enum_value_of_the_data_exists() -> None:
    pool = descriptor().file.pool
    for key in schema().values:
        enum, _, value = key.partition("=")
        assert value in pool.FindEnumTypeByName(f"inference.{enum}").values_by_name


def test_every_entry_has_a_release_of_the_table_and_a_source() -> None:
    known = schema()
    for field in (*known.fields.values(), *known.values.values()):
        assert field.since in known.servers
        assert field.source


@pytest.mark.parametrize(
    ("release", "version"),
    [("21.08", "2.13.0"), ("22.12", "2.29.0"), ("24.10", "2.51.0"), ("25.07", "2.59.1"), ("26.05", "2.69.0")],
)
def test_container_releases_and_server_versions(release: str, version: str) -> None:
    assert server_version(release) == version
    assert container_release(version) == release


def test_releases_out_of_the_table_are_unknown() -> None:
    assert server_version("30.01") is None
    assert container_release("1.0.0") is None


@pytest.mark.parametrize(
    ("text", "before", "since"),
    [
        ("response_cache { enable: true }", "21.09", "21.10"),
        ('input { name: "X" optional: true }', "21.12", "22.01"),
        ("model_warmup { count: 2 }", "22.06", "22.07"),
        ('ensemble_scheduling { step { model_namespace: "n" } }', "23.02", "23.03"),
        ("sequence_batching { iterative_sequence: true }", "23.10", "23.11"),
        ('runtime: "r"', "23.12", "24.01"),
        ("output { is_non_linear_format_io: true }", "24.07", "24.08"),
        ("model_metrics { }", "24.10", "24.11"),
        ("ensemble_scheduling { max_inflight_requests: 3 }", "25.10", "25.11"),
        ("input { data_type: TYPE_BF16 }", "22.04", "22.05"),
        ("batch_input { kind: BATCH_ITEM_SHAPE }", "22.02", "22.03"),
    ],
)
def test_a_field_is_unknown_before_its_release_and_known_from_then_on(text: str, before: str, since: str) -> None:
    found = unknown_fields(parse(text), before)
    assert [item.since for item in found] == [since]
    assert unknown_fields(parse(text), since) == []


def test_unknown_fields_say_where_they_are_in_lists_and_maps() -> None:
    message = parse('input { } input { optional: true } sequence_batching { state { initial_state { name: "z" } } }')
    assert [item.at for item in unknown_fields(message, "21.11")] == [
        ("input", 1, "optional"),
        ("sequence_batching", "state", 0, "initial_state"),
    ]


def test_supports_answers_by_release_and_refuses_what_no_triton_knows() -> None:
    assert supports("instance_group", "21.08")
    assert not supports("model_metrics", "24.10")
    assert supports("model_metrics", "24.11")
    with pytest.raises(SpecError, match="no Triton has"):
        supports("model_metric", "24.10")
    with pytest.raises(SpecError, match="no container release"):
        supports("model_metrics", "2.51.0")
