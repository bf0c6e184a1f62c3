"""What pods may: nothing that serving does not need."""

from __future__ import annotations

from typing import Any

import pytest

from helm.chart import NAME, Refusal, merged, render
from helm.combinations import COMBINATIONS, GATEWAY, KEEPER, PROXY


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [document["spec"]["template"]["spec"] for document in documents if "template" in document.get("spec", {})]
    return found + [document["spec"] for document in documents if document["kind"] == "Pod"]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_pod_keeps_the_restricted_standard(helm: str, name: str) -> None:
    found = pods(render(COMBINATIONS[name]).documents)
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("name", COMBINATIONS)
def test_only_the_keeper_has_a_token(helm: str, name: str) -> None:
    for document in render(COMBINATIONS[name]).documents:
        for pod in pods([document]):
            is_keeper = document["metadata"]["name"] == f"{NAME}-keeper"
            assert pod["automountServiceAccountToken"] is is_keeper


def test_the_keeper_reads_addresses_and_sets_its_own_routes_alone(helm: str) -> None:
    rules = render(merged(GATEWAY, KEEPER)).one("Role", "-keeper")["rules"]
    writing = [rule for rule in rules if set(rule["verbs"]) - {"get", "list"}]
    (rule,) = writing
    assert rule["resourceNames"] == [NAME]
    assert rule["verbs"] == ["get", "patch"]
    assert set(rule["resources"]) == {"httproutes", "grpcroutes"}
    assert not any("secrets" in rule["resources"] for rule in rules)
    behind_proxy = render(merged(PROXY, KEEPER)).one("Role", "-keeper")["rules"]
    assert all(set(rule["verbs"]) <= {"get", "list"} for rule in behind_proxy)


def test_the_agent_reaches_the_keeper_as_it_is(helm: str) -> None:
    rendered = render(merged(PROXY, KEEPER))
    assert rendered.one("ConfigMap", "-agent")["data"]["agent.py"] == KEEPER["keeper"]["agent"]
    (keeper,) = rendered.pod("-keeper")["containers"]
    assert keeper["command"] == ["python3", "-B", "/agent/agent.py", "--root", "/tritonforge", "watch"]
    mounts = {mount["mountPath"]: mount for mount in keeper["volumeMounts"]}
    assert "readOnly" not in mounts["/tritonforge"]
    assert rendered.one("Deployment", "-keeper")["spec"]["strategy"] == {"type": "Recreate"}


def test_another_agent_restarts_the_keeper(helm: str) -> None:
    def template(agent: str) -> Any:
        values = merged(PROXY, {"keeper": {"enabled": True, "agent": agent}})
        return render(values).one("Deployment", "-keeper")["spec"]["template"]

    assert template("a") == template("a")
    assert template("a") != template("b")


def test_a_keeper_without_its_agent_or_a_volume_is_refused(helm: str) -> None:
    with pytest.raises(Refusal, match=r"--set-file keeper.agent=agent.py"):
        render({"keeper": {"enabled": True}})
    with pytest.raises(Refusal, match=r"keeper.enabled needs models.source: pvc"):
        render(merged(KEEPER, {"models": {"source": "image"}}))


@pytest.mark.parametrize("where", ["arguments", "extraArgs"])
def test_options_that_the_chart_sets_cannot_be_set_behind_its_back(helm: str, where: str) -> None:
    for words in ({"server": {where: ["--model-control-mode=explicit"]}},):
        with pytest.raises(Refusal, match="has --model-control-mode, which the chart sets itself"):
            render(words)
        with pytest.raises(Refusal, match="has --model-control-mode, which the chart sets itself"):
            render({"slots": {"blue": {"values": words}}})


def test_releases_outlive_the_helm_release(helm: str) -> None:
    claim = render().one("PersistentVolumeClaim", "-models")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
