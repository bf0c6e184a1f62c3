"""The chart on a real API server whose pods are only said to run: installed, upgraded, rolled back, uninstalled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helm.chart import CHART, NAME, merged
from helm.cluster import Cluster, cluster_of_its_own, eventually
from helm.combinations import BOTH, COMBINATIONS, FIRST, KEEPER, PROXY, SECOND

pytestmark = pytest.mark.testbed

IMAGES = {"image": {"repository": "registry.test/triton"}, "proxy": {"image": {"repository": "registry.test/haproxy"}}}
ON_DISK = {"models": {"pvc": {"create": {"storageClassName": "-", "size": "1Gi"}}}}
START = merged(BOTH, PROXY, KEEPER, IMAGES, ON_DISK)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of_its_own(tmp_path) as found:
        if not found.fake:
            pytest.skip("the cluster's pods really run, and these images are nowhere")
        yield found


@pytest.fixture(scope="module")
def dry() -> Iterator[Cluster]:
    """For what changes nothing."""
    with cluster_of_its_own() as found:
        yield found


def releases(cluster: Cluster) -> dict[str, str]:
    """What each slot's pods carry."""
    return {
        pod["metadata"]["labels"]["tritonforge.dev/slot"]: pod["metadata"]["annotations"]["tritonforge.dev/release"]
        for pod in cluster.pods("server")
        if "deletionTimestamp" not in pod["metadata"]
    }


def history(cluster: Cluster) -> list[tuple[int, str]]:
    return [(item["revision"], item["status"]) for item in json.loads(cluster.helm("history", "shop", "-o", "json"))]


def proxies(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["uid"] for pod in cluster.pods("proxy")}


def addresses(cluster: Cluster) -> dict[str, str]:
    return {service["metadata"]["name"]: service["spec"]["clusterIP"] for service in cluster.get("services")}


def test_a_rollout_by_helm_and_back(cluster: Cluster) -> None:
    cluster.install(START, "--wait", "--timeout=60s")
    assert releases(cluster) == {"blue": FIRST, "green": SECOND}
    assert cluster.get("persistentvolumeclaim", f"{NAME}-models")["status"]["phase"] == "Bound"
    before, stay = proxies(cluster), addresses(cluster)
    assert len(before) == 2

    # Weights: a change of the configuration on disk alone.
    moved = merged(START, {"traffic": {"blue": 0, "green": 100}})
    cluster.upgrade(moved, "--wait", "--timeout=60s")
    assert "server green" in (config := cluster.get("configmap", f"{NAME}-proxy")["data"]["haproxy.cfg"])
    assert " weight 100 " in next(line for line in config.splitlines() if line.strip().startswith("server green"))
    assert proxies(cluster) == before

    # Another release in the slot without traffic: its pods alone are replaced.
    third = merged(moved, {"slots": {"blue": {"release": "c" * 64}}})
    green = {pod["metadata"]["uid"] for pod in cluster.pods("server", "green")}
    cluster.upgrade(third, "--wait", "--timeout=60s")
    eventually(lambda: releases(cluster) == {"blue": "c" * 64, "green": SECOND})
    assert {pod["metadata"]["uid"] for pod in cluster.pods("server", "green")} == green
    assert proxies(cluster) == before

    # The slot ends; its address stays. Then back to where all began.
    cluster.upgrade(merged(third, {"slots": {"blue": {"enabled": False}}}), "--wait", "--timeout=60s")
    eventually(lambda: releases(cluster) == {"green": SECOND})
    assert addresses(cluster) == stay
    cluster.helm("rollback", "shop", "1", "--wait", "--timeout=60s")
    eventually(lambda: releases(cluster) == {"blue": FIRST, "green": SECOND})
    assert proxies(cluster) == before
    assert history(cluster)[-1] == (5, "deployed")

    cluster.helm("uninstall", "shop", "--wait")
    assert cluster.get("deployments") == []
    assert [claim["metadata"]["name"] for claim in cluster.get("persistentvolumeclaims")] == [f"{NAME}-models"]
    # What stayed is taken over by the next installation.
    cluster.install(START, "--wait", "--timeout=60s")


def test_a_bad_image_never_takes_the_place_of_a_good_one(cluster: Cluster) -> None:
    cluster.install(START, "--wait", "--timeout=60s")
    good = {pod["metadata"]["uid"] for pod in cluster.pods("server", "green")}
    bad = merged(START, {"slots": {"green": {"image": {"repository": "registry.test/bad", "tag": "1"}}}})
    with pytest.raises(AssertionError, match="green"):
        cluster.upgrade(bad, "--wait", "--timeout=8s")
    assert history(cluster)[-1] == (2, "failed")
    assert good <= {pod["metadata"]["uid"] for pod in cluster.pods("server", "green")}
    cluster.helm("rollback", "shop", "--wait", "--timeout=60s")
    eventually(lambda: {pod["metadata"]["uid"] for pod in cluster.pods("server", "green")} == good)


def test_helm_test_runs_its_pod(cluster: Cluster) -> None:
    cluster.install(merged(IMAGES, ON_DISK), "--wait", "--timeout=60s")
    said = cluster.helm("test", "shop", "--timeout=60s")
    assert f"TEST SUITE:     {NAME}-test" in said
    assert "Succeeded" in said


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_server_takes_every_combination(dry: Cluster, name: str) -> None:
    """Server-side apply, dry: the API server's own validation, and its old versions of what has moved since."""
    values = merged(
        IMAGES,
        COMBINATIONS[name],
        # No cluster here knows these kinds; their manifests are tested as they are rendered.
        {"metrics": {"serviceMonitor": {"enabled": False}, "prometheusRule": {"enabled": False}}},
        {"gatewayAPI": {"enabled": False}, "autoscaling": {"engine": "hpa"}, "traffic": {"blue": 100, "green": 0}},
    )
    said = dry.helm("install", "shop", str(CHART), "--dry-run=server", "--output=json", values=values)
    manifest = json.loads(said)["manifest"]
    versions = {item["kind"]: item["apiVersion"] for item in yaml.safe_load_all(manifest) if item}
    assert versions["PodDisruptionBudget"] == "policy/v1beta1"
    assert versions.get("HorizontalPodAutoscaler", "autoscaling/v2beta2") == "autoscaling/v2beta2"
    assert "serverside-applied (server dry run)" in dry.kubectl(
        "apply", "--server-side", "--dry-run=server", "--filename=-", stdin=manifest
    )
