"""Traffic split by the Gateway API: weights stand in routes, and what the proxy would count is asked of the servers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from tritonforge.errors import ForgeError
from tritonforge.measure.metrics import FAILURE, SUCCESS, parse_metrics
from tritonforge.rollout.host import SLOTS
from tritonforge.rollout.targets.kubernetes_forward import fetch
from tritonforge.rollout.targets.kubernetes_keeper import KeeperPlace
from tritonforge.rollout.targets.kubernetes_workloads import GATEWAY, Workloads

PENDING = "nv_inference_pending_request_count"
"""Requests that wait for an instance."""


class RoutedPlace(KeeperPlace):
    """As the keeper's place, with ``weigh`` and ``proxy`` meant for routes.

    The keeper patches them itself, so that the dead-man timer does the same.
    """

    _workloads: Workloads
    _route: str

    def serve(self, workloads: Workloads, route: str) -> None:
        """Say whose routes these are."""
        self._workloads, self._route = workloads, route

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Any:
        given = dict(arguments or {})
        if operation == "weigh":
            return super().call("route", self._routed(given), timeout=timeout)
        if operation == "proxy":
            return self._counted()
        if operation == "arm":
            given["revert"] = [self._routed(step) if step.get("op") == "weigh" else step for step in given["revert"]]
        return super().call(operation, given, timeout=timeout)

    def _routed(self, step: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in step.items() if key in ("token", "weights")}
        return {"op": "route", "group": GATEWAY, "name": self._route, **kept}

    def _counted(self) -> dict[str, Any]:
        """Requests of each slot as its servers count them, in the form of the proxy's answer."""
        weights = self._weights()
        rows: dict[str, Any] = {}
        for slot in SLOTS:
            pods = [pod for pod in self._workloads.pods(slot) if pod.ready]
            with ThreadPoolExecutor(8) as pool:
                counts = list(pool.map(lambda pod: self._of(pod.name), pods))
            rows[slot] = {
                "status": ["UP" for _ in pods],
                "stot": sum(count[0] for count in counts),
                "scur": sum(count[1] for count in counts),
                "eresp": 0,
                "hrsp_5xx": 0,
                "act": len(pods),
                "weight": weights.get(slot, 0),
            }
        return {"triton_http": rows}

    def _of(self, pod: str) -> tuple[int, int]:
        """Requests that a server has answered, and those that wait in it."""
        try:
            text = fetch(self._cluster, pod, 8002, "/metrics").decode(errors="replace")
        except (ForgeError, OSError, HTTPException):
            return 0, 0
        answered = waiting = 0.0
        for sample in parse_metrics(text):
            if sample.name in (SUCCESS, FAILURE):
                answered += sample.value
            elif sample.name == PENDING:
                waiting += sample.value
        return round(answered), round(waiting)

    def _weights(self) -> dict[str, int]:
        route = self._workloads.route()
        rules = [] if route is None else route["spec"].get("rules") or []
        found = {}
        for reference in rules[0].get("backendRefs") or [] if rules else []:
            found[str(reference["name"]).rpartition("-")[2]] = int(reference.get("weight", 1))
        return found
