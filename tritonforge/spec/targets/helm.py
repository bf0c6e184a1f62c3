"""``kind: helm``: Kubernetes, by the chart."""

from __future__ import annotations

from typing import Any, Literal

from tritonforge.spec.strict import RelativePath, Strict
from tritonforge.spec.targets.common import InstanceName, ProxySpec, TargetCommon


class ModelDelivery(Strict):
    """How model files reach the pods."""

    source: Literal["pvc", "image", "object-store"] = "pvc"
    """`pvc`: copied to a volume by content; `image`: they are in the serving image; `object-store`: an init container
    fetches them."""
    claim: str | None = None
    """An existing PersistentVolumeClaim; the chart makes one when absent."""
    size: str = "10Gi"
    """Size of the claim that the chart makes."""
    storage_class: str | None = None
    """Its storage class."""
    url: str | None = None
    """Where the object store has releases: `s3://bucket/prefix`, an `https` address."""


class HelmTarget(TargetCommon):
    """A Helm release in a namespace of a Kubernetes cluster."""

    kind: Literal["helm"]
    """Kubernetes, by Helm."""
    name: InstanceName | None = None
    """The Helm release's name; `<spec>-<target>` when absent."""
    namespace: str = "default"
    """The namespace."""
    context: str | None = None
    """The context of the kubeconfig; its current one when absent."""
    kubeconfig: RelativePath | None = None
    """The kubeconfig; KUBECONFIG or the usual one when absent."""
    chart: RelativePath | None = None
    """The chart; tritonforge's own when absent."""
    image: str | None = None
    """Triton's image, best with its digest; NVIDIA's of the platform's release when absent."""
    values: list[RelativePath] = []
    """Values files for the chart, laid over each other."""
    set: dict[str, Any] = {}
    """Further values of the chart."""
    proxy: ProxySpec = ProxySpec()
    """The chart's proxy."""
    routes: Literal["haproxy", "gateway"] = "haproxy"
    """What splits the traffic: the chart's HAProxy, or routes of the Gateway API."""
    models: ModelDelivery = ModelDelivery()
    """By which way model files come to the pods."""
    timeout_s: int = 600
    """The longest that one call of helm may take."""
