"""Helm's releases on a real API server: what a killed or failed helm left is healed, and a change is the least that
will do. Pods need not run: the test bed's fake kubelet is enough."""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.helm_site import VALUES, Cluster, close_cluster, eventually, open_cluster
from tritonforge.errors import EnvironmentLacks, SpecError
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.targets.helm import HelmHost
from tritonforge.rollout.targets.helm_installation import Installation, own_chart
from tritonforge.rollout.targets.helm_program import HelmFailed, find_helm
from tritonforge.rollout.targets.helm_release import BY, HelmRelease, this_process
from tritonforge.rollout.targets.kubernetes_api import Access
from tritonforge.rollout.targets.kubernetes_api import Cluster as Api

pytestmark = pytest.mark.testbed

GOOD, BAD, LOADING = "test/triton:1", "test/bad:1", "test/unready:1"
UNREADY = "image.repository=test/unready,image.tag=1"
START_BLUE = ("--reuse-values", "--set", "slots.blue.enabled=true")
FIRST, SECOND = "a" * 64, "b" * 64
SERVERS = "app.kubernetes.io/component=server"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = open_cluster(f"helm-{secrets.token_hex(4)}")
    try:
        if not found.fake:
            pytest.skip("this needs a cluster whose pods are only said to run")
        found.add_volume(found.namespace, "shop-models", tmp_path / "volume")
        yield found
    finally:
        close_cluster(found, [found.namespace])


@pytest.fixture
def host(cluster: Cluster) -> Iterator[HelmHost]:
    made = a_host(cluster, GOOD)
    yield made
    made.close()


def a_host(cluster: Cluster, image: str, timeout: int = 60, **values: Any) -> HelmHost:
    access = Access(cluster.namespace)
    installation = Installation("shop", own_chart(), image, {**VALUES, **values}, proxy_image="test/haproxy:1")
    return HelmHost(installation, find_helm(access, timeout), Api(access))


def install(host: HelmHost) -> HelmRelease:
    """The keeper and the Services; no slot."""
    host.release.apply(host.installation.wanted(None, {"repository": "test/triton", "tag": "1"}), "first")
    return host.release


def start(host: HelmHost, release: str = FIRST, image: str = GOOD) -> ServerStart:
    return ServerStart(release, ("--strict-readiness=true",), image, settings=host.settings())


def killed(cluster: Cluster, verb: str, *words: str, by: str | None) -> None:
    """A helm that waited for pods which never become ready, until it was killed."""
    label = ["--labels", f"{BY}={by}"] if by else []
    command = ["helm", verb, "shop", str(own_chart()), "--namespace", cluster.namespace, "--wait", *label, *words]
    process = subprocess.Popen([*command, "--set-string", UNREADY])
    pending = f"pending-{verb}"
    eventually(lambda: process.poll() is not None or cluster.get("secrets", selector=f"status={pending}"), 60)
    assert process.poll() is None, "it ended by itself"
    time.sleep(1.0)
    process.kill()
    process.wait()


def dead(number: int) -> str:
    """The label of a process of this machine that has ended."""
    machine, pid, started, _ = this_process(number).split(".")
    return f"{machine}.{pid}.{int(started) + 1}.{number}"


def statuses(cluster: Cluster) -> list[str]:
    return [item["status"] for item in cluster.history("shop")]


def test_the_same_values_again_are_no_revision(cluster: Cluster, host: HelmHost) -> None:
    release = install(host)
    values = dict(release.values() or {})
    assert release.apply(values, "again") is False
    assert a_host(cluster, GOOD).release.apply(values, "again, by another process") is False
    assert release.apply({**values, "commonLabels": {"a": "b"}}, "a change") is True
    history = cluster.history("shop")
    assert [item["description"] for item in history] == ["first", "a change"]
    assert release.apply({**values, "commonLabels": {"a": "b"}}, "once more", force=True) is True


def test_an_install_that_was_killed_is_taken_away(cluster: Cluster, host: HelmHost) -> None:
    killed(cluster, "install", by=dead(1))
    note = host.release.heal(ours=False)
    assert note == "Helm's revision 1 was left pending-install and nothing was deployed: it was uninstalled"
    assert host.release.revisions() == []
    install(host)
    assert statuses(cluster) == ["deployed"]


def test_an_upgrade_that_was_killed_is_rolled_back(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    killed(cluster, "upgrade", *START_BLUE, by=dead(2))
    assert statuses(cluster)[-1] == "pending-upgrade"
    note = host.release.heal(ours=False)
    assert note == "Helm's revision 2 was left pending-upgrade: rolled back to revision 1"
    assert (statuses(cluster)[-1], statuses(cluster).count("deployed")) == ("deployed", 1)
    assert (host.release.values() or {})["slots"]["blue"] == {"enabled": False}
    assert host.release.heal(ours=False) is None


def test_where_helm_cannot_roll_back_the_same_is_deployed_again(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    # Under other names: what was deployed is still there, and was to go.
    killed(cluster, "upgrade", by=dead(2))
    note = host.release.heal(ours=False)
    assert note == "Helm's revision 2 was left pending-upgrade: what revision 1 had was deployed again"
    assert (statuses(cluster)[-1], statuses(cluster).count("deployed")) == ("deployed", 1)
    assert [item["metadata"]["name"] for item in cluster.get("deployments")] == ["shop-keeper", "shop-proxy"]


def test_somebody_elses_helm_is_not_disturbed_until_it_is_surely_dead(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    killed(cluster, "upgrade", *START_BLUE, by=None)
    with pytest.raises(EnvironmentLacks, match="another helm seems to be at work") as caught:
        host.release.heal(ours=True)
    assert "left alone it is taken for dead 60 s after it began" in str(caught.value.hint)
    impatient = a_host(cluster, GOOD, timeout=1)
    assert "rolled back to revision 1" in str(impatient.release.heal(ours=False))


def test_under_our_lock_what_another_machines_tritonforge_left_is_healed(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    killed(cluster, "upgrade", *START_BLUE, by="000000000000-000000000000.1.1.2")
    with pytest.raises(EnvironmentLacks, match="another helm seems to be at work"):
        host.release.heal(ours=False)
    assert "rolled back to revision 1" in str(host.release.heal(ours=True))


def test_a_helm_whose_tritonforge_was_killed_is_waited_for(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    words = ["helm", "upgrade", "shop", str(own_chart()), "--namespace", cluster.namespace, "--wait", "--timeout", "6s"]
    process = subprocess.Popen([*words, *START_BLUE, "--set-string", UNREADY])
    eventually(lambda: statuses(cluster)[-1] == "pending-upgrade", 60)
    assert host.release.program.others("shop") == [process.pid]
    reaper = threading.Thread(target=process.wait)
    reaper.start()
    note = host.release.heal(ours=False)
    reaper.join(1)
    assert process.returncode not in (None, 0)
    assert note == "Helm's revision 2 was left failed: rolled back to revision 1"


def test_a_change_that_the_cluster_refuses_leaves_what_was_deployed(cluster: Cluster, host: HelmHost) -> None:
    release = install(host)
    values = dict(release.values() or {})
    with pytest.raises(HelmFailed) as caught:
        release.apply({**values, "commonLabels": {"not a label!": "x"}}, "bad")
    assert "not a label!" in str(caught.value)
    assert (statuses(cluster)[-1], release.values()) == ("deployed", values)


def test_values_that_the_chart_refuses_change_nothing(cluster: Cluster, host: HelmHost) -> None:
    release = install(host)
    with pytest.raises(SpecError, match="the chart refuses the values") as caught:
        release.apply({**(release.values() or {}), "gpu": {"cuont": 1}}, "bad")
    assert "cuont" in str(caught.value)
    assert statuses(cluster) == ["deployed"]


def test_a_namespace_that_is_not_there_is_said(cluster: Cluster) -> None:
    host = a_host(Cluster("never-made", True), GOOD)
    with pytest.raises(EnvironmentLacks, match="namespace is not there"):
        install(host)


def test_a_keeper_that_cannot_run_is_said_at_once(cluster: Cluster) -> None:
    host = a_host(cluster, BAD)
    with pytest.raises(EnvironmentLacks, match="the keeper does not start") as caught:
        host.prepare()
    assert "ImagePullBackOff" in str(caught.value.found)
    assert cluster.uids(SERVERS) == set()


def test_slots_start_and_stop_and_nothing_else_is_restarted(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    assert host.status("blue").words == "not started"
    first = start(host)
    host.start("blue", first)
    eventually(lambda: host.status("blue").words.startswith("running since"))
    blue = host.status("blue")
    assert (blue.running, blue.fingerprint, blue.release, blue.image) == (True, first.fingerprint, FIRST, GOOD)
    host.proxy_up("")
    assert host.proxy_status().running
    proxies = cluster.uids("app.kubernetes.io/component=proxy")
    old = cluster.uids("tritonforge.dev/slot=blue")
    revisions = len(statuses(cluster))
    host.start("blue", first)
    host.proxy_up("")
    host.settle({"blue": 100, "green": 0}, "", "token")
    assert len(statuses(cluster)) == revisions, "what is so already is no revision"

    # A newcomer with other values of the user, and then the traffic.
    other = a_host(cluster, GOOD, tolerations=[{"key": "a", "operator": "Exists"}])
    second = start(other, SECOND)
    assert second.settings != first.settings
    assert "tolerations: [] → [{'key': 'a', 'operator': 'Exists'}]" in other.differences(second)
    other.start("green", second)
    other.settle({"blue": 0, "green": 100}, "", "token")
    assert cluster.history("shop")[-1]["description"].endswith(f"green serves {SECOND[:12]}")
    assert cluster.uids("tritonforge.dev/slot=blue") == old, "each slot keeps the values that it was proven with"
    other.stop("blue", 1.0)
    assert (other.status("blue").words, cluster.uids("tritonforge.dev/slot=blue")) == ("not started", set())

    # Back to the first: as it was started then.
    other.start("blue", first)
    specs = {item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in cluster.get("deployments")}
    assert "tolerations" not in specs["shop-blue"]
    assert specs["shop-green"]["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert other.status("blue").fingerprint == first.fingerprint
    assert cluster.uids("app.kubernetes.io/component=proxy") == proxies
    other.remove(claim=True)
    assert cluster.get("deployments") == []
    assert all("deletionTimestamp" in item["metadata"] for item in cluster.get("pvc"))


def test_an_image_that_cannot_be_had_is_hopeless_and_one_that_loads_is_not(cluster: Cluster, host: HelmHost) -> None:
    install(host)
    host.start("blue", start(host, image=BAD))
    eventually(lambda: not host.status("blue").running)
    assert "ImagePullBackOff" in host.status("blue").words
    host.start("green", start(host, image=LOADING))
    eventually(lambda: "not ready yet" in host.status("green").words)
    assert host.status("green").running
    host.stop("blue", 1.0)
    host.stop("green", 1.0)
    assert (host.status("blue").running, host.status("green").running) == (False, False)


def test_a_pod_that_no_node_takes_is_hopeless_after_a_while(
    cluster: Cluster, host: HelmHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(host)
    huge = a_host(cluster, GOOD, server={**VALUES["server"], "resources": {"requests": {"cpu": "999"}}})
    huge.start("blue", start(huge))
    eventually(lambda: "no node takes it" in huge.status("blue").words)
    assert huge.status("blue").running, "a node may come"
    monkeypatch.setattr("tritonforge.rollout.targets.kubernetes_workloads.UNPLACED_S", 0.0)
    assert not huge.status("blue").running
