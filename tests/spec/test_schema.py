from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tritonforge.spec.models import ForgeSpec
from tritonforge.spec.schema import json_schema, reference_page
from tritonforge.spec.strict import field_docs

DEMO = Path(__file__).parents[2] / "repositories" / "file-type" / "forge.yaml"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def demo() -> Any:
    return copy.deepcopy(yaml.safe_load(DEMO.read_text(encoding="utf-8")))


def test_the_demo_is_accepted(validator: jsonschema.Draft202012Validator, demo: Any) -> None:
    assert [error.message for error in validator.iter_errors(demo)] == []


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("platforms", "gpu"),
        ("models", "network"),
        ("models", "network", "golden"),
        ("models", "network", "golden", "ranges", "bytes"),
        ("ensembles", "file-type"),
        ("ensembles", "file-type", "steps", 0),
        ("gates", "interactive", "slo"),
        ("server", "memory"),
        ("defaults",),
    ],
    ids=str,
)
def test_an_unknown_key_is_rejected_wherever_it_stands(
    validator: jsonschema.Draft202012Validator, demo: Any, path: tuple[str | int, ...]
) -> None:
    inner = demo
    for part in path:
        inner = inner[part]
    inner["colour"] = "red"
    assert not validator.is_valid(demo)


@pytest.mark.parametrize(
    "source", ["net.onnx", {"path": "net.onnx"}, {"package": "a", "version": "1", "file": "b"}], ids=str
)
def test_both_forms_of_a_source_are_accepted(
    validator: jsonschema.Draft202012Validator, demo: Any, source: Any
) -> None:
    demo["models"]["network"]["source"] = source
    assert validator.is_valid(demo)


def test_the_reference_page_explains_every_key() -> None:
    page = reference_page()
    for name in ForgeSpec.model_fields:
        assert f"| `{name}` |" in page
        assert field_docs(ForgeSpec)[name]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(line.split(" | ")[-1].strip(" |") for line in rows), "a key has no meaning"
