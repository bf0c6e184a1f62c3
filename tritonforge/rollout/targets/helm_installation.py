"""What an installation of the chart is given: the user's values, what the target says, and what a rollout decides."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.host import SLOTS, ServerStart
from tritonforge.rollout.targets.helm_values import (
    Values,
    at,
    image_parts,
    layered,
    merge,
    refuse_owned,
    slot_values,
)

START: Final = "tritonforge.dev/start"
"""Annotation of a slot and its pods: the fingerprint of the start that they run."""
IMAGE: Final = "tritonforge.dev/image"
"""Likewise: the image in the words of that start."""
ADOPTED: Final = "tritonforge.dev/adopted"
"""Annotation in the values of a slot alone: the Service whose pods were adopted."""
CONTAINER: Final = "tritonforge.dev/container"
"""Likewise: the container of those pods that is Triton."""


@dataclass(frozen=True)
class Installation:
    """``values`` are the user's, one layer; ``image`` is Triton's. ``tls``, ``client_ca`` and ``tokens``: whether the
    proxy has them."""

    name: str
    chart: Path
    image: str
    values: Mapping[str, Any] = field(default_factory=dict)
    routes: Literal["haproxy", "gateway"] = "haproxy"
    claim: str | None = None
    size: str = "10Gi"
    storage_class: str | None = None
    proxy_image: str | None = None
    sequence_header: str | None = None
    tls: bool = False
    client_ca: bool = False
    tokens: bool = False

    @cached_property
    def defaults(self) -> Values:
        """The chart's own values."""
        import yaml

        try:
            found: Values = yaml.safe_load((self.chart / "values.yaml").read_text(encoding="utf-8"))
        except OSError as error:
            raise EnvironmentLacks(
                "the chart is not there",
                found=f"{self.chart}: {error.strerror}",
                hint="name its folder with the target's `chart`",
            ) from None
        return found

    @cached_property
    def version(self) -> str:
        """The chart's version."""
        import yaml

        return str(yaml.safe_load((self.chart / "Chart.yaml").read_text(encoding="utf-8"))["version"])

    @property
    def fullname(self) -> str:
        """What the chart's resources are called; the chart cuts it at 40 characters."""
        given = str(self.values.get("fullnameOverride") or self.name)
        return given[:40].removesuffix("-")

    @property
    def gateway(self) -> bool:
        """Whether the Gateway API splits the traffic."""
        return self.routes == "gateway"

    @property
    def workload(self) -> str:
        """What a slot is, as the API's path names it."""
        kind = str(at(self.values, "workload.kind") or at(self.defaults, "workload.kind"))
        return "statefulsets" if kind == "StatefulSet" else "deployments"

    @property
    def effective(self) -> Values:
        """All values that do not depend on the rollout, the chart's own included."""
        found: Values = merge(self.defaults, layered([self._checked(), self._said()]))
        if not self.gateway:
            found["proxy"] = merge(self.defaults.get("proxy"), self.proxy(None))
        return found

    def wanted(self, now: Mapping[str, Any] | None, keeper_image: Mapping[str, Any]) -> Values:
        """The values for Helm; ``now`` is what is deployed, whose slots, traffic and proxy stay as they are."""
        found = layered([self._checked(), self._said()])
        found["keeper"] = layered(
            [
                found.get("keeper", {}),
                {
                    "enabled": True,
                    "agent": AGENT.read_text(encoding="utf-8"),
                    "image": dict(keeper_image),
                },
            ]
        )
        if now is not None and "slots" in now:
            for key in ("slots", "traffic", "proxy", "gatewayAPI"):
                if key in now:
                    found[key] = copy.deepcopy(now[key])
            return found
        # Nobody is to reach a server that is not proven: until then there are no proxies, and no routes.
        found["slots"] = {slot: layered([at(found, f"slots.{slot}") or {}, {"enabled": False}]) for slot in SLOTS}
        found["traffic"] = {"blue": 100, "green": 0}
        found["proxy"] = {**self.proxy(None), "replicas": 0} if not self.gateway else {"enabled": False}
        found["gatewayAPI"] = {**(found.get("gatewayAPI") or {}), "enabled": False}
        return found

    def slot(self, name: str, start: ServerStart) -> Values:
        """The values of one slot that runs ``start``."""
        given = at(self.values, f"slots.{name}") or {}
        notes = {**(given.get("annotations") or {}), START: start.fingerprint, IMAGE: start.image or ""}
        return {
            **given,
            "enabled": True,
            "release": start.release,
            "image": image_parts(start.image or self.image),
            "annotations": notes,
            "values": slot_values(self.effective, start.arguments),
        }

    def proxy(self, mark: str | None) -> Values:
        """The values of the proxy; ``mark`` changes with its certificates and tokens, which it reads when it starts."""
        ours: Values = {"enabled": True}
        if self.proxy_image is not None:
            ours["image"] = image_parts(self.proxy_image)
        if self.sequence_header is not None:
            ours["sequenceHeader"] = self.sequence_header
        if self.tls:
            ours["tls"] = {"secretName": f"{self.fullname}-proxy-tls"}
            if self.client_ca:
                ours["tls"]["clientCASecretName"] = f"{self.fullname}-proxy-clients"
        if self.tokens:
            ours["tokens"] = {"secretName": f"{self.fullname}-proxy-tokens", "key": "tokens"}
        if mark is not None:
            ours["podAnnotations"] = {"tritonforge.dev/files": mark}
        found = layered([dict(self.values.get("proxy") or {}), ours])
        if self.sequence_header is not None:
            found.setdefault("replicas", 1)
        found.setdefault("replicas", at(self.defaults, "proxy.replicas") or 2)
        return found

    def routing(self) -> Values:
        """The values of the Gateway API's routes."""
        return {**(self.values.get("gatewayAPI") or {}), "enabled": True}

    def _checked(self) -> Values:
        refuse_owned(self.values, "the target's `values` and `set`")
        return copy.deepcopy(dict(self.values))

    def _said(self) -> Values:
        """What the target says in the chart's words."""
        pvc: Values = {}
        if self.claim is not None:
            pvc = {"claimName": self.claim}
        else:
            pvc = {"create": {"enabled": True, "size": self.size}}
            if self.storage_class is not None:
                pvc["create"]["storageClassName"] = self.storage_class
        return {
            "fullnameOverride": self.fullname,
            "image": image_parts(self.image),
            "models": {"source": "pvc", "pvc": pvc},
            # For servers that clients reach without anything between; here there is always something.
            "shutdown": {"grpcConnectionSeconds": 0},
        }


def serving(values: Mapping[str, Any]) -> str:
    """The slot with the most traffic."""
    return max(SLOTS, key=lambda slot: int(at(values, f"traffic.{slot}") or 0))


def stopped(slot: Mapping[str, Any]) -> Values:
    """A slot's values without what a start put in."""
    ours = ("release", "image", "values", "annotations", "adopted")
    kept = {key: value for key, value in slot.items() if key not in ours}
    marks = (START, IMAGE, ADOPTED, CONTAINER)
    notes = {key: value for key, value in (slot.get("annotations") or {}).items() if key not in marks}
    return {**kept, "enabled": False, **({"annotations": notes} if notes else {})}


def own_chart() -> Path:
    """tritonforge's own chart.

    Raises:
        EnvironmentLacks: this installation came without it.
    """
    import tritonforge

    folder = (Path(tritonforge.__file__).parent / "chart").resolve()
    if (folder / "Chart.yaml").is_file():
        return folder
    raise EnvironmentLacks(
        "this installation of tritonforge came without its chart",
        hint="name a folder with it by the target's `chart`; it is `helm/tritonforge` of the sources",
    )
