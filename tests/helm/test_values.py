"""values.yaml, its schema and its table say the same."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import yaml

from helm.chart import CHART, Refusal, render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def values_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("values_table", CHART.parent / "values_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path


def test_the_table_is_current() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    written = values_table().updated(readme, (CHART / "values.yaml").read_text(encoding="utf-8"))
    assert readme == written, "run `python helm/values_table.py`"


def test_every_value_has_a_description() -> None:
    rows = [name for name, _, _ in values_table().rows((CHART / "values.yaml").read_text(encoding="utf-8"))]
    described = tuple(f"{row}." for row in rows)
    assert [leaf for leaf in leaves(VALUES) if not f"{leaf}.".startswith(described)] == []
    assert len(rows) == len(set(rows))


def test_the_schema_knows_every_value_and_no_other() -> None:
    def compare(values: Any, schema: dict[str, Any], path: str) -> None:
        if "properties" not in schema or schema.get("$ref"):
            return
        assert schema["additionalProperties"] is False, path
        assert set(values) == set(schema["properties"]) - {"global"}, path
        for key, value in values.items():
            compare(value, schema["properties"][key], f"{path}.{key}")

    compare(VALUES, SCHEMA, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slots": {"blue": {"enabld": True}}}, "at '/slots/blue': additional properties 'enabld' not allowed"),
        ({"traffic": {"blue": 300}}, "at '/traffic/blue': maximum: got 300, want 256"),
        ({"server": {"resources": {"requests": {"cpu": 1}}}}, "'/server/resources/requests/cpu': got number, want str"),
        ({"slots": {"blue": {"release": "latest"}}}, "at '/slots/blue/release': 'latest' does not match pattern"),
        ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
        ({"workload": {"kind": "DaemonSet"}}, "at '/workload/kind': value must be one of 'Deployment', 'StatefulSet'"),
        ({"models": {"pvc": {"subPath": "../other"}}}, "at '/models/pvc/subPath': 'not' failed"),
        ({"models": {"objectStore": {"url": "ftp://x"}}}, "at '/models/objectStore/url': 'ftp://x' does not match"),
        ({"server": {"arguments": ["log-verbose=1"]}}, "at '/server/arguments/0': 'log-verbose=1' does not match"),
        ({"podSecurity": {"runAsUser": 0}}, "at '/podSecurity/runAsUser': minimum: got 0, want 1"),
        ({"gpu": {"mig": "1g.10gb.x"}}, "at '/gpu/mig': '1g.10gb.x' does not match pattern"),
        ({"slots": {"green": {"values": {"proxy": {}}}}}, "additional properties 'proxy' not allowed"),
    ],
)
def test_wrong_values_are_refused_with_their_place(helm: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=re.escape(message)):
        render(values)
