"""A Triton of a namespace that ran before tritonforge came, taken into a slot with nothing restarted.

The slot's Services select its pods, so the proxies find them like any other. It stays whoever's it is: it is never
changed or scaled, only left when its slot is needed for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.rollout.host import ServerStatus
from tritonforge.rollout.targets.helm_installation import ADOPTED, CONTAINER, IMAGE, START
from tritonforge.rollout.targets.helm_values import Values, at
from tritonforge.rollout.targets.kubernetes_api import Cluster
from tritonforge.rollout.targets.kubernetes_forward import Forwarding
from tritonforge.rollout.targets.kubernetes_pods import PodState, image_in_words, pod_state, slot_words
from tritonforge.rollout.targets.kubernetes_workloads import Workloads
from tritonforge.triton.connection import Connection

PORTS: Final = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""Triton's own (docs/user_guide, "Triton server options")."""


@dataclass(frozen=True, slots=True)
class Guest:
    """The pods behind a Service: ``selector`` are their labels, ``ports`` where they listen, ``image`` what runs."""

    service: str
    selector: Mapping[str, str]
    ports: Mapping[str, int]
    container: str
    image: str
    arguments: tuple[str, ...]
    pod: str

    def values(self) -> Values:
        """``slots.<slot>.adopted`` of the chart."""
        return {"selector": dict(self.selector), "ports": dict(self.ports)}


def foreign_service(cluster: Cluster, name: str, instance: str) -> Guest:
    """The Triton behind the Service ``name`` of the cluster's namespace; ``instance`` is our own Helm release.

    Raises:
        UsageError: there is no such Service, no pod of it is ready, it is tritonforge's own, or polls its repository.
        EnvironmentLacks: its pods are not found by labels, or it offers no HTTP port.
    """
    service = cluster.get(cluster.path("services", name))
    if service is None:
        there = sorted(str(item["metadata"]["name"]) for item in cluster.items(cluster.path("services")))
        raise UsageError(
            f"there is no Service '{name}' in {cluster.access.namespace}",
            found=f"there: {', '.join(there[:10]) or 'none'}",
        )
    if (service["metadata"].get("labels") or {}).get("app.kubernetes.io/instance") == instance:
        raise UsageError(f"the Service '{name}' is the target's own", expected="that of a Triton which runs already")
    selector: Mapping[str, str] = service["spec"].get("selector") or {}
    if not selector:
        raise EnvironmentLacks(f"the Service '{name}' selects no pods by labels", expected="a `selector`")
    pods = [pod for pod in cluster.items(cluster.path("pods"), selector) if pod_state(pod).ready]
    if not pods:
        raise UsageError(f"no pod of the Service '{name}' is ready", hint="adopt it when it serves")
    return guest_of(service, pods[0])


def guest_of(service: Mapping[str, Any], pod: Mapping[str, Any]) -> Guest:
    """A Service and one of its pods, both as the API gives them.

    Raises:
        UsageError: it polls its repository.
        EnvironmentLacks: it offers no HTTP port.
    """
    name = str(service["metadata"]["name"])
    ports = {kind: port for kind in PORTS if (port := _port(kind, service["spec"].get("ports") or [], pod)) is not None}
    missing = [kind for kind in ("http", "grpc") if kind not in ports]
    if missing:
        said = [f"{item.get('name') or ''} {item['port']}".strip() for item in service["spec"].get("ports") or []]
        raise EnvironmentLacks(
            f"the Service '{name}' offers no {' and no '.join(missing)}",
            expected=f"ports named {', '.join(PORTS)}, or {', '.join(map(str, PORTS.values()))}",
            found=", ".join(said) or "none",
        )
    container = _container(pod, ports["http"])
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    # A shell's command line is one word.
    if any("--model-control-mode=poll" in word for word in words):
        raise UsageError(f"'{name}' polls its repository, so what it serves can change at any time", hint="restart it")
    statuses = {item["name"]: item for item in pod.get("status", {}).get("containerStatuses") or []}
    ran = str(statuses.get(container["name"], {}).get("imageID") or "")
    image = ran.partition("://")[2] or ran
    return Guest(
        name,
        dict(service["spec"]["selector"]),
        {**PORTS, **ports},
        str(container["name"]),
        image if "@" in image else str(container["image"]),
        tuple(words),
        str(pod["metadata"]["name"]),
    )


def adopted_slot(guest: Guest, given: Mapping[str, Any], notes: Mapping[str, str], release: str) -> Values:
    """The values of a slot in which a guest serves; ``given`` are the user's, ``notes`` what tells the start."""
    notes = {**(given.get("annotations") or {}), **notes, ADOPTED: guest.service, CONTAINER: guest.container}
    return {**given, "enabled": False, "release": release, "annotations": notes, "adopted": guest.values()}


@dataclass(frozen=True, slots=True)
class Guests:
    """What was adopted into slots; ``deployed`` gives the values that Helm has deployed."""

    cluster: Cluster
    workloads: Workloads
    deployed: Callable[[], Values | None]

    def labels(self, slot: str) -> Mapping[str, str]:
        """The labels of the pods that were adopted into a slot; empty where none were."""
        return adopted_selector(self.deployed(), slot)

    @contextmanager
    def reach(self, labels: Mapping[str, str], ports: Mapping[str, int]) -> Iterator[Connection]:
        """The ready pods with these labels, through the API server."""

        def ready() -> list[str]:
            return [pod.name for pod in self.workloads.selected(labels) if pod.ready]

        with Forwarding(self.cluster, lambda: next(iter(ready()), None)) as forwarding:
            yield Connection(
                forwarding.port(ports["http"]),
                forwarding.port(ports["grpc"]),
                forwarding.metrics(ready, ports["metrics"]),
            )

    @contextmanager
    def reach_slot(self, slot: str) -> Iterator[Connection]:
        """The same for those of a slot."""
        found = at(self.deployed() or {}, f"slots.{slot}.adopted")
        with self.reach(found["selector"], found["ports"]) as connection:
            yield connection

    def status(self, slot: str) -> ServerStatus:
        """What the guests of a slot do; it does not run where there are none."""
        now = self.deployed()
        labels = adopted_selector(now, slot)
        if not labels:
            return ServerStatus(False, words="not started")
        notes: Mapping[str, str] = at(now or {}, f"slots.{slot}.annotations") or {}
        pods = self.workloads.selected(labels)
        ready = [pod for pod in pods if pod.ready]
        first = ready[0] if ready else next(iter(pods), None)
        return ServerStatus(
            bool(ready),
            notes.get(START),
            at(now or {}, f"slots.{slot}.release"),
            image_in_words(notes.get(IMAGE), first),
            None if first is None else first.started,
            0,  # its own restarts are nothing that a rollout did
            f"adopted from {notes.get(ADOPTED)}, {slot_words(pods)}",
        )

    def logged(self, slot: str) -> tuple[list[PodState], str]:
        """The guests of a slot, and which container of theirs is Triton."""
        notes: Mapping[str, str] = at(self.deployed() or {}, f"slots.{slot}.annotations") or {}
        return self.workloads.selected(self.labels(slot)), notes.get(CONTAINER, "")


def adopted_selector(values: Mapping[str, Any] | None, slot: str) -> Mapping[str, str]:
    """The labels of the pods that were adopted into a slot; empty where none were."""
    return at(values or {}, f"slots.{slot}.adopted.selector") or {}


def _port(kind: str, ports: Sequence[Mapping[str, Any]], pod: Mapping[str, Any]) -> int | None:
    """Where the pod listens for what a Service offers by this name, or by Triton's own number."""
    named = [item for item in ports if str(item.get("name") or "").startswith(kind)]
    numbered = [item for item in ports if PORTS[kind] in (item["port"], item.get("targetPort"))]
    for item in [*numbered, *named]:
        target = item.get("targetPort", item["port"])
        if isinstance(target, int):
            return target
        for container in pod["spec"]["containers"]:
            for offered in container.get("ports") or []:
                if offered.get("name") == target:
                    return int(offered["containerPort"])
    return None


def _container(pod: Mapping[str, Any], port: int) -> Mapping[str, Any]:
    containers: Sequence[Mapping[str, Any]] = pod["spec"]["containers"]
    for container in containers:
        if any(item.get("containerPort") == port for item in container.get("ports") or []):
            return container
    return containers[0]
