"""The installations that people have, as values: each is rendered, linted, and checked against Kubernetes' schemas."""

from __future__ import annotations

from typing import Any, Final

from helm.chart import merged

FIRST: Final = "a" * 64
SECOND: Final = "b" * 64
BOTH: Final[dict[str, Any]] = {
    "slots": {"blue": {"release": FIRST}, "green": {"enabled": True, "release": SECOND}},
}
PROXY: Final[dict[str, Any]] = {"proxy": {"enabled": True}}
KEEPER: Final[dict[str, Any]] = {"keeper": {"enabled": True, "agent": "print('an agent')\n# {{ no template }}\n"}}
ADOPTED: Final[dict[str, Any]] = {"selector": {"app": "triton"}, "ports": {"http": 9000, "grpc": 9001, "metrics": 9002}}
GATEWAY: Final[dict[str, Any]] = {
    "gatewayAPI": {"enabled": True, "parentRefs": [{"name": "gate", "namespace": "infra"}], "hostnames": ["a.example"]}
}
COMBINATIONS: Final[dict[str, dict[str, Any]]] = {
    "as it stands": {},
    "two slots behind the proxy": merged(BOTH, PROXY, KEEPER, {"traffic": {"blue": 90, "green": 10}}),
    "the proxy finds pods by name": merged(BOTH, PROXY, {"proxy": {"discovery": "dns"}}),
    "sequences keep their server": merged(PROXY, {"proxy": {"replicas": 1, "sequenceHeader": "x-sequence"}}),
    "TLS and tokens": merged(
        PROXY,
        {
            "proxy": {
                "tls": {"secretName": "cert", "clientCASecretName": "ca"},
                "tokens": {"secretName": "tokens"},
            }
        },
    ),
    "beside a Triton that was adopted": merged(
        PROXY,
        KEEPER,
        {
            "slots": {"blue": {"enabled": False, "release": FIRST, "adopted": ADOPTED}},
            "networkPolicy": {"enabled": True, "egress": {"restrict": True}},
        },
    ),
    "behind a Gateway": merged(BOTH, GATEWAY, KEEPER, {"traffic": {"blue": 90, "green": 10}}),
    "behind a Gateway with a listener for gRPC": merged(
        BOTH, GATEWAY, {"gatewayAPI": {"grpc": {"hostnames": ["grpc.example"]}}}
    ),
    "a StatefulSet on GPUs": {
        "workload": {"kind": "StatefulSet"},
        "gpu": {"enabled": True, "count": 2, "runtimeClassName": "nvidia"},
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "ngc"}],
    },
    "MIG": {"gpu": {"enabled": True, "mig": "1g.10gb"}},
    "from an object store": {
        "slots": {"blue": {"release": FIRST}},
        "models": {
            "source": "objectStore",
            "objectStore": {"url": "s3://models/{release}", "secretRef": "s3", "cacheClaim": "cache"},
        },
    },
    "from the image": {"models": {"source": "image"}},
    "on a claim of one's own": {"models": {"pvc": {"claimName": "nfs", "subPath": "team/a"}}},
    "scaled by queue time": {"autoscaling": {"enabled": True}},
    "scaled by CPU": {"autoscaling": {"enabled": True, "metric": "cpu"}},
    "scaled by KEDA": {"autoscaling": {"enabled": True, "engine": "keda"}},
    "watched": {
        "metrics": {
            "annotations": True,
            "serviceMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True},
        }
    },
    "fenced in": merged(
        PROXY,
        KEEPER,
        {
            "networkPolicy": {
                "clients": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
                "monitoring": [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}],
                "egress": {"restrict": True, "extra": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
            }
        },
    ),
}
