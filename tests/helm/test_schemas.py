"""Every combination is what Kubernetes 1.28 to 1.37 understand, and what Helm takes for a clean chart."""

from __future__ import annotations

import functools
import json
import subprocess
from typing import Any

import pytest
import yaml

from helm.chart import CHART, NAME, render
from helm.combinations import COMBINATIONS

VERSIONS = tuple(f"1.{minor}" for minor in range(28, 38))
OF_OTHERS = ("gateway.networking.k8s.io", "monitoring.coreos.com", "keda.sh")
"""Groups of custom resources: Kubernetes has no schema of them."""


EVERY_DAY = ("1.28", "1.37")


@pytest.mark.parametrize(
    "version", [pytest.param(item, marks=() if item in EVERY_DAY else pytest.mark.slow) for item in VERSIONS]
)
def test_manifests_fit_the_schema(helm: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    validator = pytest.importorskip("kubernetes_validate.utils")
    # It would read all of Kubernetes' definitions again for each resource.
    monkeypatch.setattr(validator, "schema_contents", functools.cache(validator.schema_contents))
    documents = {
        json.dumps(document, sort_keys=True): document
        for values in COMBINATIONS.values()
        for document in render(values, kubernetes=f"{version}.0").documents
        if not document["apiVersion"].startswith(OF_OTHERS)
    }
    for document in documents.values():
        assert validator.validate(document, version, strict=True) == version


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "as it stands" else pytest.mark.slow) for name in COMBINATIONS],
)
def test_helm_lints_without_a_word(helm: str, name: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", str(CHART), "--values", "-"],
        input=yaml.safe_dump(COMBINATIONS[name]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


def numbers(value: Any, path: str = "") -> list[str]:
    """Where a resource quantity is a number: the API server of Helm's server-side apply refuses it."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in numbers(item, f"{path}.{key}")]
    return [path] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize("name", COMBINATIONS)
def test_what_a_server_side_apply_insists_on_is_there(helm: str, name: str) -> None:
    for document in render(COMBINATIONS[name]).documents:
        assert document["metadata"]["name"].startswith(NAME)
        assert len(document["metadata"]["name"]) <= 63
        assert document["metadata"]["namespace"] == "shop"
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert all(port["protocol"] == "TCP" for port in spec["ports"])
        pod = spec.get("template", {}).get("spec") or (spec if document["kind"] == "Pod" else {})
        for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
            assert all(port["protocol"] == "TCP" for port in container.get("ports", []))
            assert numbers(container.get("resources", {})) == []


def test_a_budget_lets_pods_go_that_serve_nobody_where_kubernetes_knows_the_field(helm: str) -> None:
    assert render(kubernetes="1.27.0").one("PodDisruptionBudget", "-blue")["spec"]["unhealthyPodEvictionPolicy"]
    old = render(kubernetes="1.26.0").one("PodDisruptionBudget", "-blue")["spec"]
    assert "unhealthyPodEvictionPolicy" not in old


def test_the_longest_names_still_fit(helm: str) -> None:
    rendered = render({"fullnameOverride": "n" * 60, "proxy": {"enabled": True}})
    names = [document["metadata"]["name"] for document in rendered.documents]
    assert max(map(len, names)) <= 63
    assert len(set(zip([item["kind"] for item in rendered.documents], names, strict=True))) == len(names)
