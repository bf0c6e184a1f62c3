"""Each check with a config that it refuses and one next to it that it lets pass (``config_checks.yaml``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tritonforge.errors import SpecError
from tritonforge.spec.platform import Platform

from .making import NEWEST, TEXT, made, signature

SEQUENCE = signature(
    {"X": "FP32[4]", "START": "INT32[1]", "ID": "UINT64[1]", "H": "FP32[8]"}, {"Y": "FP32[4]", "H2": "FP32[8]"}
)
NAMED = {"new": NEWEST, "old": Platform("old", "24.07", False, "x86_64"), "text": TEXT, "sequence": SEQUENCE}
CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "config_checks.yaml").read_text())


def settings(case: dict[str, Any]) -> dict[str, Any]:
    return {key: NAMED[value] if key in ("platform", "signature") else value for key, value in case.items()}


@pytest.mark.parametrize("case", CASES, ids=[case["message"] for case in CASES])
def test_checks(case: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        made(case["refused"], **settings(case.get("refused_with", {})))
    assert case["message"] in caught.value.message
    assert caught.value.place is not None
    assert caught.value.place.line == 12, "an error is at the line that says the value"
    made(case.get("passes", {}), **settings(case.get("passes_with", {})))


def test_a_field_that_is_too_new_names_its_release_its_source_and_the_way_out() -> None:
    with pytest.raises(SpecError) as caught:
        made({"model_metrics": {}})
    error = caught.value
    assert "24.10 (server 2.51.0)" in (error.expected or "")
    assert "24.11 and later" in (error.found or "")
    assert "platforms: NAME: config:" in (error.hint or "")


@pytest.mark.parametrize("field", ["instance_group", "optimization", "model_warmup"])
def test_an_ensemble_has_nothing_that_runs(field: str) -> None:
    steps = {"ensemble_scheduling": {"step": [{"model_name": "a"}]}}
    ensemble = {"backend": "ensemble", "max_batch_size": 4}
    config = made(steps, **ensemble)
    assert config.message.platform == "ensemble"
    assert (config.message.backend, len(config.message.instance_group)) == ("", 0)
    values = {"instance_group": [{"count": 1}], "optimization": {"eager_batching": True}, "model_warmup": [{}]}[field]
    with pytest.raises(SpecError, match=f"refuses `{field}`"):
        made({**steps, field: values}, **ensemble)
    with pytest.raises(SpecError, match="has no steps"):
        made({"ensemble_scheduling": {}}, **ensemble)
