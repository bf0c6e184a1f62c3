"""What a Service and its pods say of a Triton that is to be adopted, and what the chart is told of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.rollout.targets.helm_adoption import adopted_selector, adopted_slot, foreign_service, guest_of
from tritonforge.rollout.targets.helm_installation import IMAGE, START, stopped
from tritonforge.rollout.targets.helm_values import fit_traffic
from tritonforge.rollout.targets.kubernetes_api import Access

DIGEST = "nvcr.io/nvidia/tritonserver@sha256:" + "a" * 64
SERVICE: dict[str, Any] = {
    "metadata": {"name": "models", "labels": {"app.kubernetes.io/instance": "theirs"}},
    "spec": {
        "selector": {"app": "triton"},
        "ports": [
            {"name": "http-inference-server", "port": 80, "targetPort": "web"},
            {"name": "other", "port": 8001},
            {"name": "metrics", "port": 9102, "targetPort": 9002},
        ],
    },
}
POD: dict[str, Any] = {
    "metadata": {"name": "triton-1", "labels": {"app": "triton"}},
    "spec": {
        "containers": [
            {"name": "side", "image": "side:1"},
            {
                "name": "server",
                "image": "nvcr.io/nvidia/tritonserver:24.10-py3",
                "args": ["tritonserver", "--model-repository=/models"],
                "ports": [{"name": "web", "containerPort": 8080}],
            },
        ]
    },
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "side", "imageID": "docker://sha256:" + "b" * 64},
            {"name": "server", "imageID": f"docker-pullable://{DIGEST}"},
        ],
    },
}


class Cluster:
    """The API's answers, without an API; a real one is asked in tests/testbed/test_adopt_helm.py."""

    access = Access("default", None, None)

    def __init__(self, service: dict[str, Any] | None = SERVICE, pods: tuple[dict[str, Any], ...] = (POD,)) -> None:
        self.service, self.pods = service, pods

    def path(self, kind: str, name: str | None = None) -> str:
        return f"{kind}/{name or ''}"

    def get(self, path: str) -> Any:
        return self.service if self.service is not None and path == "services/models" else None

    def items(self, path: str, labels: Any = None) -> list[Any]:
        if path == "services/":
            return [SERVICE]
        assert labels == {"app": "triton"}
        return list(self.pods)


def found(cluster: Any, name: str = "models") -> Any:
    return foreign_service(cluster, name, "ours")


def changed(what: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(what)
    *parents, last = path.split(".")
    at = made
    for key in parents:
        at = at[key]
    at[last] = value
    return made


def test_ports_are_found_by_name_or_by_tritons_own_number() -> None:
    guest = found(Cluster())
    assert dict(guest.ports) == {"http": 8080, "grpc": 8001, "metrics": 9002}
    assert (guest.service, guest.container, guest.image, guest.pod) == ("models", "server", DIGEST, "triton-1")
    assert guest.arguments == ("tritonserver", "--model-repository=/models")


def test_an_image_that_was_never_pulled_keeps_its_name() -> None:
    pod = changed(POD, "status.containerStatuses", [{"name": "server", "imageID": "docker://sha256:" + "c" * 64}])
    assert guest_of(SERVICE, pod).image == "nvcr.io/nvidia/tritonserver:24.10-py3"


def test_metrics_may_lack() -> None:
    service = changed(SERVICE, "spec.ports", SERVICE["spec"]["ports"][:2])
    assert guest_of(service, POD).ports["metrics"] == 8002


@pytest.mark.parametrize(
    ("cluster", "name", "error", "words"),
    [
        (Cluster(), "none", UsageError, "no Service 'none' in default"),
        (
            Cluster(changed(SERVICE, "metadata.labels", {"app.kubernetes.io/instance": "ours"})),
            "models",
            UsageError,
            "the target's own",
        ),
        (Cluster(changed(SERVICE, "spec.selector", None)), "models", EnvironmentLacks, "selects no pods"),
        (Cluster(pods=()), "models", UsageError, "no pod of the Service 'models' is ready"),
        (
            Cluster(pods=(changed(POD, "status.conditions", []),)),
            "models",
            UsageError,
            "no pod of the Service 'models' is ready",
        ),
        (
            Cluster(changed(SERVICE, "spec.ports", [{"port": 443}])),
            "models",
            EnvironmentLacks,
            "offers no http and no grpc",
        ),
        (
            Cluster(
                pods=(
                    changed(
                        POD,
                        "spec.containers",
                        [{**POD["spec"]["containers"][1], "args": ["sh -c 'tritonserver --model-control-mode=poll'"]}],
                    ),
                )
            ),
            "models",
            UsageError,
            "polls its repository",
        ),
    ],
)
def test_what_cannot_be_adopted(cluster: Cluster, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        found(cluster, name)


def test_a_slot_is_told_and_forgets() -> None:
    given = {"annotations": {"team": "a"}, "replicas": 2}
    slot = adopted_slot(found(Cluster()), given, {START: "f", IMAGE: DIGEST}, "r" * 64)
    assert slot["enabled"] is False
    assert slot["adopted"] == {
        "selector": {"app": "triton"},
        "ports": {"http": 8080, "grpc": 8001, "metrics": 9002},
    }
    assert adopted_selector({"slots": {"blue": slot}}, "blue") == {"app": "triton"}
    assert stopped(slot) == {"enabled": False, "replicas": 2, "annotations": {"team": "a"}}
    assert adopted_selector({"slots": {"blue": stopped(slot)}}, "blue") == {}


def test_traffic_may_go_to_a_slot_that_was_adopted() -> None:
    values: dict[str, Any] = {
        "slots": {"blue": adopted_slot(found(Cluster()), {}, {}, "r"), "green": {"enabled": True}},
        "traffic": {"blue": 100, "green": 0},
    }
    fit_traffic(values)
    assert values["traffic"] == {"blue": 100, "green": 0}
