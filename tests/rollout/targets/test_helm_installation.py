"""What Helm is given: the user's values, the target's, and at first neither servers nor a way to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks, SpecError
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.targets.helm_differences import value_differences
from tritonforge.rollout.targets.helm_installation import IMAGE, START, Installation, own_chart, stopped
from tritonforge.rollout.targets.helm_release import chart_digest, is_dead, this_process
from tritonforge.rollout.targets.helm_values import at

KEEPER = {"repository": "triton", "tag": "1", "digest": ""}


def installation(**more: Any) -> Installation:
    return Installation("shop", own_chart(), "triton:1", **more)


def test_at_first_nobody_can_reach_a_server_that_is_not_proven() -> None:
    values = installation().wanted(None, KEEPER)
    assert [at(values, f"slots.{slot}.enabled") for slot in ("blue", "green")] == [False, False]
    assert (at(values, "proxy.enabled"), at(values, "proxy.replicas")) == (True, 0)
    assert at(values, "keeper.agent") == AGENT.read_text(encoding="utf-8")
    routed = installation(routes="gateway").wanted(None, KEEPER)
    assert (at(routed, "gatewayAPI.enabled"), at(routed, "proxy.enabled")) == (False, False)


def test_a_change_leaves_slots_traffic_and_proxy_as_they_are_deployed() -> None:
    now = {
        "slots": {"blue": {"enabled": True, "release": "a" * 64}, "green": {"enabled": False}},
        "traffic": {"blue": 100, "green": 0},
        "proxy": {"enabled": True, "replicas": 3},
        "gpu": {"enabled": False},
    }
    values = installation(values={"gpu": {"enabled": True}, "proxy": {"replicas": 5}}).wanted(now, KEEPER)
    assert {key: values[key] for key in ("slots", "traffic", "proxy")} == {
        key: now[key] for key in ("slots", "traffic", "proxy")
    }
    assert at(values, "gpu.enabled") is True


def test_the_target_speaks_in_the_charts_words() -> None:
    values = installation(claim="mine").wanted(None, KEEPER)
    assert at(values, "models.pvc") == {"claimName": "mine"}
    assert at(values, "image") == {"repository": "triton", "tag": "1", "digest": ""}
    made = installation(size="50Gi", storage_class="fast").wanted(None, KEEPER)
    assert at(made, "models.pvc.create") == {"enabled": True, "size": "50Gi", "storageClassName": "fast"}


def test_the_proxy_is_asked_for_what_the_target_wants_and_marked_by_its_secrets() -> None:
    proxy = installation(
        proxy_image="haproxy:3.2", sequence_header="x-seq", tls=True, client_ca=True, tokens=True
    ).proxy("abc")
    assert proxy == {
        "enabled": True,
        "replicas": 1,
        "image": {"repository": "haproxy", "tag": "3.2", "digest": ""},
        "sequenceHeader": "x-seq",
        "tls": {"secretName": "shop-proxy-tls", "clientCASecretName": "shop-proxy-clients"},
        "tokens": {"secretName": "shop-proxy-tokens", "key": "tokens"},
        "podAnnotations": {"tritonforge.dev/files": "abc"},
    }
    assert installation(values={"proxy": {"replicas": 4}}).proxy(None) == {"enabled": True, "replicas": 4}


def test_names_are_cut_as_the_chart_cuts_them() -> None:
    name = "a" * 39 + "-blue"
    assert Installation(name, own_chart(), "triton:1").fullname == "a" * 39
    assert installation(values={"fullnameOverride": "other"}).fullname == "other"


def test_what_a_rollout_decides_is_refused() -> None:
    with pytest.raises(SpecError, match="a rollout decides"):
        installation(values={"traffic": {"blue": 1}}).wanted(None, KEEPER)


def test_a_chart_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="the chart is not there") as caught:
        _ = Installation("shop", tmp_path, "triton:1").defaults
    assert str(tmp_path) in str(caught.value.found)


def test_the_charts_digest_changes_with_what_helm_reads(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.yaml").write_text("a")
    first = chart_digest(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert chart_digest(tmp_path) == first
    (tmp_path / "templates" / "a.yaml").write_text("b")
    assert chart_digest(tmp_path) != first


def test_whose_revision_it_is_stands_in_a_label() -> None:
    mine = this_process(12)
    assert len(mine) <= 63
    machine, pid, started, number = mine.split(".")
    assert number == "12"
    assert is_dead(mine), "this process has no helm running while it looks"
    assert is_dead(f"{machine}.{pid}.{int(started) + 1}.12"), "the number was given to another process"
    assert is_dead(f"{machine.partition('-')[0]}-000000000000.1.1.12"), "the machine was started again"
    assert not is_dead(f"000000000000-{machine.partition('-')[2]}.{pid}.{started}.12"), "another machine's"
    assert not is_dead(None)


def test_a_slot_is_given_its_start_and_a_stopped_one_only_what_the_user_said() -> None:
    made = installation(values={"slots": {"green": {"replicas": 3, "annotations": {"team": "a"}}}})
    start = ServerStart("a" * 64, ("--x=1",), "triton:1@sha256:ab")
    slot = made.slot("green", start)
    assert (slot["enabled"], slot["release"], slot["replicas"]) == (True, "a" * 64, 3)
    assert slot["image"] == {"repository": "triton", "tag": "1", "digest": "sha256:ab"}
    assert slot["annotations"] == {"team": "a", START: start.fingerprint, IMAGE: "triton:1@sha256:ab"}
    assert slot["values"]["server"]["arguments"] == ["--x=1"]
    assert stopped(slot) == {"enabled": False, "replicas": 3, "annotations": {"team": "a"}}


def test_differences_are_those_of_the_slot_the_proxy_and_the_rest() -> None:
    before = installation(values={"service": {"type": "ClusterIP"}})
    now = before.wanted(None, KEEPER)
    now["slots"]["blue"] = before.slot("blue", ServerStart("a" * 64, ("--x=1",)))
    now["proxy"] = before.proxy("mark")
    assert value_differences(before, now, ["--x=1"]) == []
    after = installation(values={"service": {"type": "NodePort"}, "gpu": {"count": 2}}, proxy_image="haproxy:3.2")
    assert value_differences(after, now, ["--x=2"]) == [
        "gpu.count: 1 → 2",
        "server.arguments: ['--x=1'] → ['--x=2']",
        "service.type: ClusterIP → NodePort",
        "proxy.image: nothing → {'repository': 'haproxy', 'tag': '3.2', 'digest': ''}",
    ]
