"""Values are laid over each other as Helm does it; what a rollout decides is refused, and secrets are not shown."""

from __future__ import annotations

from typing import Any

import pytest

from tritonforge.errors import SpecError
from tritonforge.rollout.targets.helm_values import (
    changes,
    fit_traffic,
    image_parts,
    layered,
    marks,
    merge,
    refuse_owned,
    slot_values,
)

LAYERS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"a": {"b": 1}}, {"a": None}, {}),
    ({"a": {"b": 1}}, {"a": {"b": None}}, {"a": {}}),
    ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
]


@pytest.mark.parametrize(("under", "over", "both"), LAYERS)
def test_maps_join_null_takes_away_and_all_else_replaces(
    under: dict[str, Any], over: dict[str, Any], both: dict[str, Any]
) -> None:
    assert merge(under, over) == both


def test_what_is_merged_shares_nothing_with_its_sources() -> None:
    under: dict[str, Any] = {"a": {"b": [1]}}
    merge(under, {"c": 1})["a"]["b"].append(2)
    layered([under, {"c": 1}])["a"]["b"].append(2)
    assert under == {"a": {"b": [1]}}


def test_a_null_in_a_values_file_stays_for_the_charts_own_value_that_it_takes_away() -> None:
    joined = layered([{"server": {"resources": {"limits": {"cpu": "1"}}}}, {"server": {"resources": None}}])
    assert joined == {"server": {"resources": None}}
    assert merge({"server": {"resources": {}, "scratch": "2Gi"}}, joined) == {"server": {"scratch": "2Gi"}}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tritonserver", ("tritonserver", "", "")),
        ("nvcr.io/nvidia/tritonserver:24.10-py3", ("nvcr.io/nvidia/tritonserver", "24.10-py3", "")),
        ("registry:5000/triton", ("registry:5000/triton", "", "")),
        ("registry:5000/triton:1@sha256:ab", ("registry:5000/triton", "1", "sha256:ab")),
        ("a/b@sha256:ab", ("a/b", "", "sha256:ab")),
    ],
)
def test_an_image_in_the_charts_three_parts(name: str, parts: tuple[str, str, str]) -> None:
    assert tuple(image_parts(name).values()) == parts


def test_what_a_rollout_decides_is_no_value_of_the_user() -> None:
    with pytest.raises(SpecError) as caught:
        refuse_owned({"traffic": {"blue": 1}, "slots": {"green": {"release": "a", "replicas": 2}}}, "here")
    assert caught.value.found == "traffic, slots.green.release"
    refuse_owned({"slots": {"green": {"replicas": 2}}, "server": {"arguments": []}, "proxy": {"replicas": 3}}, "here")


def test_a_slot_keeps_all_that_its_pods_run_with_and_the_exit_time_is_the_charts() -> None:
    effective = {
        "server": {"arguments": ["--of-somebody"], "extraArgs": ["-x"], "scratch": "2Gi"},
        "shutdown": {"drainSeconds": 20, "exitTimeoutSeconds": 60},
        "service": {"type": "ClusterIP"},
    }
    own = slot_values(effective, ["--strict-readiness=true", "--exit-timeout-secs=9"])
    assert own == {
        "server": {"arguments": ["--strict-readiness=true"], "extraArgs": ["-x"], "scratch": "2Gi"},
        "shutdown": {"drainSeconds": 20, "exitTimeoutSeconds": 9},
    }
    assert effective["shutdown"] == {"drainSeconds": 20, "exitTimeoutSeconds": 60}


def test_marks_change_with_values_and_show_none_of_them() -> None:
    before = marks({"server": {"env": [{"name": "KEY", "value": "hidden"}]}, "gpu": {"count": 1}, "service": {}})
    after = marks({"server": {"env": [{"name": "KEY", "value": "other"}]}, "gpu": {"count": 1}, "service": {}})
    assert set(before) == {"values.server", "values.gpu"}
    assert before["values.gpu"] == after["values.gpu"]
    assert before["values.server"] != after["values.server"]
    assert "hidden" not in str(before)


@pytest.mark.parametrize(
    ("enabled", "traffic", "fitted"),
    [
        (["blue"], {"blue": 100, "green": 0}, {"blue": 100, "green": 0}),
        (["green"], {"blue": 100, "green": 0}, {"blue": 0, "green": 100}),
        ([], {"blue": 100, "green": 0}, {"blue": 100, "green": 0}),
        (["blue", "green"], {"blue": 5, "green": 95}, {"blue": 5, "green": 95}),
        (["blue"], {"blue": 50, "green": 50}, {"blue": 100, "green": 0}),
    ],
)
def test_traffic_goes_only_to_slots_that_run(
    enabled: list[str], traffic: dict[str, int], fitted: dict[str, int]
) -> None:
    values = {"slots": {slot: {"enabled": slot in enabled} for slot in ("blue", "green")}, "traffic": dict(traffic)}
    fit_traffic(values)
    assert values["traffic"] == fitted


def test_differences_name_their_path_and_hide_what_may_be_a_secret() -> None:
    before = {"gpu": {"count": 1}, "server": {"env": [{"name": "A", "value": "s3cret"}], "scratch": "1Gi"}}
    after = {"gpu": {"count": 2}, "server": {"env": [{"name": "A", "value": "n3w"}]}, "auth": {"apiKey": "hush"}}
    assert list(changes(before, after)) == [
        "auth: changed",
        "gpu.count: 1 → 2",
        "server.env: changed",
        "server.scratch: 1Gi → nothing",
    ]
