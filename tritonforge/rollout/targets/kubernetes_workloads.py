"""The chart's workloads in a cluster: which there are, what their pods do, and when a change of them is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks, ForgeError
from tritonforge.rollout.targets.kubernetes_api import Cluster
from tritonforge.rollout.targets.kubernetes_pods import PodState, pod_state, slot_words

UNPLACED_S: Final = 60.0
"""A pod that no node takes is hopeless after this long, unless the cluster is being given more nodes for it."""
GATEWAY: Final = "gateway.networking.k8s.io/v1"
_MORE_NODES: Final = frozenset({"TriggeredScaleUp", "Nominated", "NominatedForNodeClaim"})
"""Events of the cluster autoscaler and of Karpenter."""


@dataclass(slots=True)
class Workloads:
    """``instance`` is Helm's name of the release, ``kind`` of the slots ``deployments`` or ``statefulsets``."""

    cluster: Cluster
    instance: str
    fullname: str
    kind: str = "deployments"
    _unplaced: dict[str, float] = field(default_factory=dict, init=False)

    def workload(self, slot: str) -> dict[str, Any] | None:
        """The slot's Deployment or StatefulSet."""
        return self.cluster.get(self.cluster.path(self.kind, f"{self.fullname}-{slot}", "apps/v1"))

    def exists(self, name: str) -> bool:
        """Whether there is such a Deployment."""
        return self.cluster.get(self.cluster.path("deployments", name, "apps/v1")) is not None

    def route(self) -> dict[str, Any] | None:
        """The HTTPRoute, where the Gateway API splits the traffic."""
        return self.cluster.get(self.cluster.path("httproutes", self.fullname, GATEWAY))

    def pods(self, slot: str, annotations: Mapping[str, str] | None = None) -> list[PodState]:
        """The pods of a slot, by age; with ``annotations`` only those that have them."""
        found = self._pods({"app.kubernetes.io/component": "server", "tritonforge.dev/slot": slot})
        wanted = (annotations or {}).items()
        return [pod for pod in found if all(pod.annotations.get(key) == value for key, value in wanted)]

    def selected(self, labels: Mapping[str, str]) -> list[PodState]:
        """The pods with these labels, whoever's they are, by age."""
        return self._states(labels)

    def component(self, name: str) -> list[PodState]:
        """The pods of ``proxy`` or ``keeper``, by age."""
        return self._pods({"app.kubernetes.io/component": name})

    def is_hopeless(self, pod: PodState) -> bool:
        """Whether a pod never becomes ready by itself."""
        if not pod.unplaced:
            self._unplaced.pop(pod.uid, None)
            return pod.hopeless
        since = self._unplaced.setdefault(pod.uid, time.monotonic())
        if time.monotonic() - since < UNPLACED_S:
            return False
        return not any(item.get("reason") in _MORE_NODES for item in self._events(pod.uid))

    def refused(self, workload: Mapping[str, Any]) -> str | None:
        """Why the cluster makes no pods of it, such as a quota."""
        for condition in workload.get("status", {}).get("conditions") or []:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                return f"{condition.get('reason')}: {condition.get('message')}"
        return None

    def await_gone(self, slot: str, grace: float) -> None:
        """Wait until no container of a slot runs any more; requests in flight get ``grace`` seconds.

        Raises:
            EnvironmentLacks: one does not end.
        """
        ends = time.monotonic() + grace
        last = ends + 90.0
        hurried: set[str] = set()
        while True:
            left = self._pods({"app.kubernetes.io/component": "server", "tritonforge.dev/slot": slot})
            if self.workload(slot) is None and not any(pod.ran for pod in left):
                return
            now = time.monotonic()
            for pod in left:
                # Its own time to end is for pods that get requests; this one gets none any more.
                if now >= ends and pod.name not in hurried:
                    hurried.add(pod.name)
                    self.cluster.delete(self.cluster.path("pods", pod.name), grace=1)
            if now > last:
                raise EnvironmentLacks(f"the pods of {slot} do not end", found=slot_words(left))
            time.sleep(0.3)

    def await_rollout(self, name: str, component: str, seconds: float) -> str | None:
        """Wait until all pods of a Deployment are its newest and ready; None then, else why not, in words."""
        ends = time.monotonic() + seconds
        path = self.cluster.path("deployments", name, "apps/v1")
        while True:
            found = self.cluster.get(path)
            if found is None:
                return f"{name} is not there"
            wanted, status = found["spec"].get("replicas", 1), found.get("status", {})
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")]
            pods = [pod for pod in self.component(component) if not pod.leaving]
            if seen and counts == [wanted] * 3 and (wanted == 0 or any(pod.ready for pod in pods)):
                return None
            refused = self.refused(found)
            if refused or any(self.is_hopeless(pod) for pod in pods):
                return refused or slot_words(pods)
            if time.monotonic() > ends:
                return f"not ready within {seconds:g} s: {slot_words(pods)}"
            time.sleep(0.3)

    def _pods(self, labels: Mapping[str, str]) -> list[PodState]:
        return self._states({"app.kubernetes.io/instance": self.instance, **labels})

    def _states(self, labels: Mapping[str, str]) -> list[PodState]:
        found = self.cluster.items(self.cluster.path("pods"), labels)
        found.sort(key=lambda item: item["metadata"].get("creationTimestamp") or "")
        states = [pod_state(item, self._warning(item)) for item in found]
        # Those that a node has given up are replaced, and stay in the list.
        live = [state for state, item in zip(states, found, strict=True) if item["status"].get("phase") != "Failed"]
        return live or states

    def _warning(self, pod: Mapping[str, Any]) -> str | None:
        """The last warning about a pod whose containers are not made yet: volumes, above all."""
        statuses = pod.get("status", {}).get("containerStatuses") or []
        reasons = [item.get("state", {}).get("waiting", {}).get("reason") for item in statuses]
        if "ContainerCreating" not in reasons:
            return None
        events = [item for item in self._events(pod["metadata"]["uid"]) if item.get("type") == "Warning"]
        events.sort(key=lambda item: str(item.get("lastTimestamp") or item.get("eventTime") or ""))
        return str(events[-1].get("message")) if events else None

    def _events(self, uid: str) -> list[Any]:
        with suppress(ForgeError):  # who may not read events is told less
            return self.cluster.items(self.cluster.path("events"), fields=f"involvedObject.uid={uid}")
        return []


def pod_logs(cluster: Cluster, pod: PodState, container: str, tail: int) -> Iterator[str]:
    """The end of a container's log, before it that of the container which it replaced."""
    path = cluster.path("pods", pod.name, part="log")
    query = {"container": container, "tailLines": str(tail)}
    for previous in ("true", "false") if pod.restarts else ("false",):
        with suppress(EnvironmentLacks):  # there is none yet, or it is gone
            yield from cluster.text(path, {**query, "previous": previous}).splitlines()


def follow_logs(cluster: Cluster, pod: PodState, container: str) -> Iterator[str]:
    """The lines that a container writes from now on."""
    path = cluster.path("pods", pod.name, part="log")
    yield from cluster.lines(path, {"container": container, "follow": "true", "tailLines": "0"})
