"""Releases go to pods of a real cluster and back, under load, and no request fails; Helm's history tells the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.commands import Workshop

from testbed import haproxy_image
from testbed.helm_site import Site, close_cluster, eventually, open_cluster
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]


@pytest.fixture(scope="session")
def haproxy(engine: Any, base: str) -> str:
    return haproxy_image.build(engine, base)


@pytest.fixture(scope="module")
def site(
    engine: Any, image: str, haproxy: str, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A target that serves its first release."""
    cluster = open_cluster("deploy-helm")
    volume = "deploy-helm"
    try:
        if cluster.fake:
            pytest.skip("the cluster's pods do not really run")
        root = tmp_path_factory.mktemp("helm")
        for folder in (root, *root.parents[:2]):
            folder.chmod(0o755)  # the keeper's user comes to the volume through them
        made = Site(Workshop.make(root / "w", runtime.root.parent), cluster, image, haproxy)
        cluster.add_volume(volume, f"{made.instance}-models", root / "volume")
        made.release(1)
        made.deploy()
        yield made
    finally:
        close_cluster(cluster, [volume])


@pytest.fixture
def serving(site: Site) -> Iterator[Site]:
    """The target with its first release in it again, and nothing broken."""
    site.release(1)
    site.deploy()
    yield site


def test_a_redeploy_and_a_rollback_lose_no_request_and_restart_nothing(serving: Site) -> None:
    first = serving.workshop.current()
    assert first is not None
    cluster = serving.cluster
    proxies = cluster.uids("app.kubernetes.io/component=proxy")
    old = cluster.uids("app.kubernetes.io/component=server")
    with serving.traffic() as traffic:
        traffic.wait_for(100)
        second = serving.release(2)
        planned = serving.deploy("--dry-run")
        done = serving.deploy()
        traffic.wait_for(100)
        deployed = cluster.history(serving.instance)[-1]
        undone = serving.deploy(command="rollback")
        traffic.wait_for(100)
    print(
        f"{traffic.total} requests, {traffic.done}, the slowest {traffic.slowest:.2f} s, {done['seconds']} s to deploy"
    )
    assert traffic.failures == []
    assert (done["outcome"], done["release"], done["previous"]) == ("deployed", second, first)
    assert (undone["outcome"], undone["release"], undone["previous"]) == ("deployed", first, second)
    # One file differs between the two: the model that was changed.
    assert planned["plan"]["files"] == 1
    # Weights were moved in running proxies, and the first server was never touched.
    assert cluster.uids("app.kubernetes.io/component=proxy") == proxies
    assert old <= cluster.uids("app.kubernetes.io/component=server")
    # Helm's newest deployed revision is the rollout's, and says what serves.
    assert deployed["status"] == "deployed"
    assert deployed["description"].startswith(f"tritonforge {done['rollout']}: ")
    assert deployed["description"].endswith(f"{done['slot']} serves {second[:12]}")
    last = cluster.history(serving.instance)[-1]
    assert last["description"].endswith(f"{undone['slot']} serves {first[:12]}")
    assert [item["status"] for item in cluster.history(serving.instance)].count("deployed") == 1


BROKEN = {
    "load": "exited with 1",
    "answers": "the newcomer is not what was released",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_bad_newcomer_goes_and_the_old_one_serves(serving: Site, how: str) -> None:
    first = serving.workshop.current()
    assert first is not None
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        serving.release(3, broken=how)
        answer = serving.said("deploy", "there")
        traffic.wait_for(50)
    assert answer.code == 1, answer.err
    assert BROKEN[how] in answer.err, answer.err
    if how == "load":
        assert "this model is broken on purpose" in answer.err
    assert f"release {first[:12]} serves, as before" in answer.err
    assert traffic.failures == []
    assert serving.deploy("--dry-run")["previous"] == first
    assert serving.cluster.history(serving.instance)[-1]["status"] == "deployed"


def test_an_image_that_cannot_be_had_rolls_back_at_once(serving: Site) -> None:
    first = serving.workshop.current()
    assert first is not None
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        serving.release(4, image="tritonforge-test/triton:none")
        answer = serving.said("deploy", "there")
        traffic.wait_for(50)
    assert answer.code == 1, answer.err
    assert "ImagePullBackOff" in answer.err
    assert "tritonforge-test/triton:none" in answer.err
    assert f"release {first[:12]} serves, as before" in answer.err
    assert traffic.failures == []
    newest = serving.cluster.history(serving.instance)[-1]
    assert (newest["status"], newest["description"][-12:]) == ("deployed", first[:12])


def test_what_runs_is_told_in_words_and_its_logs_are_read(serving: Site) -> None:
    status = serving.deploy(command="status")
    assert status["ok"] is True
    assert (status["ready"], status["dead_man_timer"]["running"]) == (2, True)
    active = next(item for item in status["slots"] if item["active"])
    assert (active["running"], active["share"], active["image"]) == (True, 100, serving.image)
    assert active["words"].startswith("running since ")
    logs = serving.said("logs", "there")
    assert "Started HTTPService" in logs.out + logs.err
    assert serving.said("diff", "there").code == 0


def test_a_pod_that_was_deleted_comes_back_and_the_target_is_as_it_was(serving: Site) -> None:
    slot = serving.deploy(command="status")["slots"]
    active = next(item["slot"] for item in slot if item["active"])
    serving.cluster.kubectl("delete", "pods", f"--selector=tritonforge.dev/slot={active}", "--wait=false")
    serving.cluster.kubectl("delete", "pods", "--selector=app.kubernetes.io/component=keeper", "--wait=false")
    eventually(lambda: serving.said("status", "there").code == 0, 120)
    assert serving.deploy()["outcome"] == "unchanged"


def test_a_deploy_that_is_killed_in_the_middle_of_the_move_is_reverted_by_the_keeper(
    serving: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving.workshop.current()
    assert first is not None
    with serving.traffic() as traffic:
        traffic.wait_for(50)
        serving.release(5)
        monkeypatch.setenv("TRITONFORGE_FAULT", "rollout.agent.append.done.shift-25.after")
        assert serving.said("deploy", "there").code == -9
        monkeypatch.delenv("TRITONFORGE_FAULT")
        assert serving.deploy(command="status", code=1)["dead_man_timer"]["pending"] is True
        eventually(lambda: not serving.deploy(command="status", code=1)["dead_man_timer"]["pending"], 90)
        back = {item["slot"]: item["share"] for item in serving.deploy(command="status", code=1)["slots"]}
        assert sorted(value or 0 for value in back.values()) == [0, 100]
        done = serving.deploy()
        traffic.wait_for(50)
    assert traffic.failures == []
    assert any("dead-man timer" in note for note in done["notes"])
    assert (done["outcome"], done["previous"]) == ("deployed", first)


def test_nothing_but_the_volume_stays_after_a_target_is_removed(serving: Site, tmp_path: Path) -> None:
    from tritonforge.actions.targets import open_target
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(serving.workshop.folder / "forge.yaml", ())
    with open_target(workspace, "there", print) as target:
        target.host.remove()
    assert serving.cluster.get("deployments") == []
    assert [item["metadata"]["name"] for item in serving.cluster.get("pvc")] == [f"{serving.instance}-models"]
    done = serving.deploy()
    assert done["outcome"] == "deployed", "the journal was kept, and so the release is started again"


ROUTES = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.gateway.networking.k8s.io
  annotations: {{api-approved.kubernetes.io: "unapproved, for tests"}}
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: {{kind: {kind}, plural: {plural}, singular: {singular}}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""


@pytest.fixture
def routed(
    engine: Any, image: str, haproxy: str, runtime: Runtime, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A target whose traffic a Gateway would split; nothing of it is there but its routes."""
    cluster = open_cluster("deploy-routes")
    volume = "deploy-routes"
    try:
        if cluster.fake:
            pytest.skip("the cluster's pods do not really run")
        text = ROUTES.format(kind="HTTPRoute", plural="httproutes", singular="httproute")
        cluster.kubectl("apply", "--filename=-", stdin=text)
        cluster.kubectl("wait", "--for=condition=Established", "crd/httproutes.gateway.networking.k8s.io")
        root = tmp_path_factory.mktemp("routes")
        for folder in (root, *root.parents[:2]):
            folder.chmod(0o755)
        made = Site(Workshop.make(root / "w", runtime.root.parent), cluster, image, haproxy, routes="gateway")
        made.values["gatewayAPI"] = {"parentRefs": [{"name": "edge"}]}
        cluster.add_volume(volume, f"{made.instance}-models", root / "volume")
        yield made
    finally:
        close_cluster(cluster, [volume])
        cluster.kubectl("delete", "crd", "httproutes.gateway.networking.k8s.io", "--ignore-not-found")


def shares(site: Site) -> dict[str, int]:
    """Weights in the route, the same in each of its rules."""
    rules = site.cluster.get("httproutes", site.instance)["spec"]["rules"]
    found = [{item["name"].rpartition("-")[2]: item["weight"] for item in rule["backendRefs"]} for rule in rules]
    assert all(item == found[0] for item in found)
    return found[0]


def test_routes_of_a_gateway_get_the_weights_and_the_keeper_brings_them_back(
    routed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.release(1)
    assert routed.deploy()["slot"] == "blue"
    assert shares(routed) == {"blue": 100, "green": 0}
    routed.release(2)
    monkeypatch.setenv("TRITONFORGE_FAULT", "rollout.agent.append.done.shift-25.after")
    assert routed.said("deploy", "there").code == -9
    monkeypatch.delenv("TRITONFORGE_FAULT")
    assert shares(routed) == {"blue": 75, "green": 25}
    eventually(lambda: shares(routed) == {"blue": 100, "green": 0}, 90)
    assert routed.deploy()["slot"] == "green"
    assert shares(routed) == {"blue": 0, "green": 100}
    assert routed.cluster.get("deployments", selector="app.kubernetes.io/component=proxy") == []
