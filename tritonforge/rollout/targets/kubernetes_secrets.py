"""Certificates and tokens of the proxies as Secrets: they never stand on the target's disk."""

from __future__ import annotations

import re
from typing import Any

from tritonforge.errors import InternalError
from tritonforge.rollout.targets.kubernetes_api import Cluster


def apply_proxy_file(cluster: Cluster, fullname: str, path: str, text: str) -> None:
    """Have one of the proxy's files be a Secret, under the name that the chart's values are given."""
    name, kind, data = secret_of(path, text)
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{fullname}-proxy-{name}",
            "namespace": cluster.access.namespace,
            "labels": {"app.kubernetes.io/managed-by": "tritonforge"},
        },
        "type": kind,
        "stringData": data,
    }
    cluster.apply(cluster.path("secrets", f"{fullname}-proxy-{name}"), body)


def secret_of(path: str, text: str) -> tuple[str, str, dict[str, str]]:
    """The end of the Secret's name, its type, and its contents."""
    if path == "proxy/tls.pem":
        blocks = re.findall(r"-----BEGIN [^-]+-----.*?-----END [^-]+-----\n?", text, re.DOTALL)
        keys = [block for block in blocks if "PRIVATE KEY-----" in block.partition("\n")[0]]
        chain = [block for block in blocks if block not in keys]
        return "tls", "kubernetes.io/tls", {"tls.crt": "".join(chain), "tls.key": "".join(keys)}
    if path == "proxy/client-ca.pem":
        return "clients", "Opaque", {"ca.crt": text}
    if path == "proxy/tokens":
        return "tokens", "Opaque", {"tokens": text}
    raise InternalError(f"no Secret is known for {path}")
