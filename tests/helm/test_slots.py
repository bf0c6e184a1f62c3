"""A slot: what it serves, how its pods start, drain, spread and are sized."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from helm.chart import NAME, Refusal, merged, render
from helm.combinations import ADOPTED, BOTH, COMBINATIONS, FIRST, SECOND


def arguments(container: dict[str, Any]) -> list[str]:
    words = container["args"]
    assert words[0] == "tritonserver"
    return list(words[1:])


def test_a_plain_install_is_one_server_that_serves_the_plain_folder(helm: str) -> None:
    rendered = render()
    assert rendered.names("Deployment") == [f"{NAME}-blue"]
    assert "--model-repository=/tritonforge/models" in arguments(rendered.server())
    assert "--model-control-mode=none" in arguments(rendered.server())


def test_a_release_is_served_from_its_snapshot_and_is_on_the_labels(helm: str) -> None:
    rendered = render(BOTH)
    for slot, release in (("blue", FIRST), ("green", SECOND)):
        assert f"--model-repository=/tritonforge/snapshots/{release}/models" in arguments(rendered.server(slot))
        template = rendered.one("Deployment", f"-{slot}")["spec"]["template"]["metadata"]
        assert template["labels"]["tritonforge.dev/slot"] == slot
        assert template["labels"]["tritonforge.dev/release"] == release[:12]
        assert template["annotations"]["tritonforge.dev/release"] == release


def test_the_volume_is_mounted_whole_and_read_only(helm: str) -> None:
    # Of a subPath that is not there Kubernetes makes an empty folder, with which Triton gets ready.
    mounts = {mount["name"]: mount for mount in render(BOTH).server()["volumeMounts"]}
    assert mounts["models"] == {"name": "models", "mountPath": "/tritonforge", "readOnly": True}


def test_changing_one_slot_leaves_the_other_as_it_is(helm: str) -> None:
    changed = merged(
        BOTH,
        {
            "slots": {
                "green": {
                    "release": FIRST,
                    "image": {"tag": "25.01-py3"},
                    "values": {"server": {"arguments": ["--log-verbose=1"]}, "nodeSelector": {"gpu": "h200"}},
                }
            },
            "traffic": {"blue": 60, "green": 40},
            "proxy": {"enabled": True},
        },
    )
    before = render(merged(BOTH, {"proxy": {"enabled": True}}))
    after = render(changed)
    assert after.one("Deployment", "-blue") == before.one("Deployment", "-blue")
    assert "--log-verbose=1" in arguments(after.server("green"))
    assert after.pod("-green")["nodeSelector"] == {"gpu": "h200"}
    assert after.server("green")["resources"] == before.server("green")["resources"]


def test_another_version_of_the_chart_alone_restarts_nothing(helm: str) -> None:
    for deployment in render(merged(BOTH, {"proxy": {"enabled": True}})).of_kind("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert "helm.sh/chart" in deployment["metadata"]["labels"]
        assert "helm.sh/chart" not in labels
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert "tritonforge.dev/release" not in deployment["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("image", "slot", "expected"),
    [
        ({}, {}, "nvcr.io/nvidia/tritonserver:24.10-py3"),
        ({"tag": "25.01-py3"}, {}, "nvcr.io/nvidia/tritonserver:25.01-py3"),
        ({"digest": f"sha256:{FIRST}"}, {}, f"nvcr.io/nvidia/tritonserver@sha256:{FIRST}"),
        ({"tag": "x", "digest": f"sha256:{FIRST}"}, {}, f"nvcr.io/nvidia/tritonserver:x@sha256:{FIRST}"),
        ({"tag": "x", "digest": f"sha256:{FIRST}"}, {"tag": "other"}, "nvcr.io/nvidia/tritonserver:other"),
        (
            {"tag": "x"},
            {"repository": "mine/triton", "digest": f"sha256:{SECOND}"},
            f"mine/triton@sha256:{SECOND}",
        ),
    ],
)
def test_a_slots_image_replaces_tag_and_digest_together(
    helm: str, image: dict[str, str], slot: dict[str, str], expected: str
) -> None:
    assert render({"image": image, "slots": {"blue": {"image": slot}}}).server()["image"] == expected


def test_loading_may_take_long_before_anything_restarts_the_server(helm: str) -> None:
    rendered = render({"probes": {"startup": {"timeoutSeconds": 3600, "periodSeconds": 10}}})
    probe = rendered.server()["startupProbe"]
    # `live`, not `ready`: a server with a model that failed must not be restarted for ever.
    assert probe["httpGet"]["path"] == "/v2/health/live"
    assert probe["failureThreshold"] * probe["periodSeconds"] == 3600
    assert rendered.server()["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert rendered.server()["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert rendered.one("Deployment", "-blue")["spec"]["progressDeadlineSeconds"] > 3600


def test_a_pod_that_is_to_end_drains_before_it_is_told(helm: str) -> None:
    rendered = render({"shutdown": {"drainSeconds": 25, "exitTimeoutSeconds": 40}})
    server = rendered.server()
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "25"]
    assert "--exit-timeout-secs=40" in arguments(server)
    assert rendered.pod("-blue")["terminationGracePeriodSeconds"] > 25 + 40
    assert rendered.one("Deployment", "-blue")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_grpc_clients_leave_a_pod_in_time_where_they_are_connected_to_it(helm: str) -> None:
    assert "--grpc-max-connection-age=10000" in arguments(render().server())
    behind = arguments(render({"proxy": {"enabled": True}}).server())
    assert not any("connection-age" in word for word in behind)
    with pytest.raises(Refusal, match=r"at most four fifths of shutdown.drainSeconds \(5\)"):
        render({"shutdown": {"drainSeconds": 5}})


def test_gpus_and_mig_slices_are_asked_for_by_their_names(helm: str) -> None:
    resources = render({"gpu": {"enabled": True, "count": 2}}).server()["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert resources["requests"]["cpu"] == "1"
    mig = render({"gpu": {"enabled": True, "mig": "1g.10gb"}})
    assert mig.server()["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": "1"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in mig.pod("-blue")["tolerations"]
    assert "limits" not in render().server()["resources"]


def test_shared_memory_is_memory(helm: str) -> None:
    rendered = render({"server": {"sharedMemory": "4Gi"}})
    volumes = {volume["name"]: volume for volume in rendered.pod("-blue")["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in rendered.server()["volumeMounts"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}


def test_pods_spread_and_budgets_count_one_slot_at_a_time(helm: str) -> None:
    rendered = render(BOTH)
    for slot in ("blue", "green"):
        selector = rendered.one("Deployment", f"-{slot}")["spec"]["selector"]["matchLabels"]
        spread = rendered.pod(f"-{slot}")["topologySpreadConstraints"]
        assert [item["topologyKey"] for item in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        assert all(item["labelSelector"]["matchLabels"] == selector for item in spread)
        budget = rendered.one("PodDisruptionBudget", f"-{slot}")["spec"]
        assert budget["selector"]["matchLabels"] == selector
        assert budget["maxUnavailable"] == 1


def test_what_is_scaled_has_no_number_of_its_own(helm: str) -> None:
    rendered = render({"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 6}})
    assert "replicas" not in rendered.one("Deployment", "-blue")["spec"]
    scaler = rendered.one("HorizontalPodAutoscaler", "-blue")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{NAME}-blue"}
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] == "triton_queue_time_us"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "20000"}
    keda = render({"autoscaling": {"enabled": True, "engine": "keda"}}).one("ScaledObject", "-blue")["spec"]
    assert f'service=~"{NAME}-(blue)-headless"' in keda["triggers"][0]["metadata"]["query"]


def test_a_stateful_set_has_a_service_for_its_names(helm: str) -> None:
    rendered = render({"workload": {"kind": "StatefulSet"}})
    spec = rendered.one("StatefulSet", "-blue")["spec"]
    assert rendered.one("Service", "-blue-headless")["spec"]["clusterIP"] == "None"
    assert spec["serviceName"] == f"{NAME}-blue-headless"


def test_models_of_the_image_need_no_volume(helm: str) -> None:
    rendered = render({"models": {"source": "image"}})
    assert "--model-repository=/release/models" in arguments(rendered.server())
    assert rendered.of_kind("PersistentVolumeClaim") == []
    assert {volume["name"] for volume in rendered.pod("-blue")["volumes"]} == {"shm", "tmp"}


def test_a_release_from_an_object_store_is_checked_by_its_own_digest(helm: str) -> None:
    store = {"source": "objectStore", "objectStore": {"url": "https://models.example/{release}", "secretRef": "s3"}}
    rendered = render({"models": store, "slots": {"blue": {"release": FIRST}}})
    (fetch,) = rendered.pod("-blue")["initContainers"]
    assert f"--url=https://models.example/{FIRST}" in fetch["command"]
    assert f"--sha256={FIRST}" in fetch["command"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert f"--model-repository=/tritonforge/{FIRST}/models" in arguments(rendered.server())
    with pytest.raises(Refusal, match=r"slots.blue.release is empty: .* cannot be checked"):
        render({"models": store})


class TestAdopted:
    """A slot in which a Triton of somebody else serves."""

    VALUES: ClassVar = COMBINATIONS["beside a Triton that was adopted"]

    def test_the_slot_runs_nothing_and_its_services_lead_to_those_pods(self, helm: str) -> None:
        rendered = render(self.VALUES)
        assert f"{NAME}-blue" not in rendered.names("Deployment")
        for suffix in ("-blue", "-blue-headless"):
            spec = rendered.one("Service", suffix)["spec"]
            assert spec["selector"] == ADOPTED["selector"]
            assert {item["name"]: (item["port"], item["targetPort"]) for item in spec["ports"]} == {
                "http": (8000, 9000),
                "grpc": (8001, 9001),
                "metrics": (8002, 9002),
            }
        assert rendered.one("Service", "-green")["spec"]["selector"]["tritonforge.dev/slot"] == "green"

    def test_proxies_may_reach_them(self, helm: str) -> None:
        egress = render(self.VALUES).one("NetworkPolicy", "-proxy")["spec"]["egress"]
        to = [rule for rule in egress if rule.get("to") == [{"podSelector": {"matchLabels": ADOPTED["selector"]}}]]
        assert [[port["port"] for port in rule["ports"]] for rule in to] == [[9000, 9001]]

    def test_proxies_that_find_pods_by_name_ask_them_where_they_listen(self, helm: str) -> None:
        config = render(merged(self.VALUES, {"proxy": {"discovery": "dns"}})).one("ConfigMap", "-proxy")
        lines = [line.split() for line in config["data"]["haproxy.cfg"].splitlines() if "server-template blue" in line]
        assert [(words[3].rpartition(":")[2], words[words.index("port") + 1]) for words in lines] == [
            ("9000", "9000"),
            ("9001", "9000"),
        ]

    def test_without_a_proxy_clients_reach_them_by_the_public_service(self, helm: str) -> None:
        spec = render(merged(self.VALUES, {"proxy": {"enabled": False}})).one("Service")["spec"]
        assert spec["selector"] == ADOPTED["selector"]
        assert [item["targetPort"] for item in spec["ports"]] == [9000, 9001]

    def test_a_slot_is_not_both(self, helm: str) -> None:
        with pytest.raises(Refusal, match="its own pods or somebody else's"):
            render(merged(self.VALUES, {"slots": {"blue": {"enabled": True}}}))
