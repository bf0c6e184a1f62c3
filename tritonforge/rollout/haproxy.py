"""HAProxy's configuration for a target with two slots.

The file holds the committed weights, so that a proxy that starts anew begins with them; rollouts move weights by the
runtime API alone (HAProxy 2.6 management guide, 9.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.repository.template import render
from tritonforge.rollout.host import Address

CONFIG: Final = "proxy/haproxy.cfg"
"""The proxy's configuration, below the target's root."""


def config_operation(text: str) -> dict[str, Any]:
    """The agent's operation that replaces the proxy's configuration on the target's disk."""
    return {"op": "write_file", "path": CONFIG, "text": text}


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The part of a proxy's configuration that does not change with a rollout; ``None`` leaves a thing out.

    ``http``, ``grpc``, ``metrics`` and ``control`` are bind addresses as HAProxy writes them. ``tls`` has ``crt`` and
    ``ca``, ``tokens`` the path of a file with the sha256 of one token a line: paths as the proxy sees them.
    """

    http: str
    grpc: str
    metrics: str | None
    control: Sequence[str]
    resolvers: str | None = None
    sequence_header: str | None = None
    tls: Mapping[str, str | None] | None = None
    tokens: str | None = None
    drain_s: float = 30.0
    mark: str | None = None
    """Changes with the files that the configuration names, so that a change of them is a change of it."""


def proxy_config(settings: ProxySettings, slots: Mapping[str, Address], weights: Mapping[str, int]) -> str:
    """The text of ``haproxy.cfg``; weights are 0 to 256."""
    variables: dict[str, Any] = {
        "http": settings.http,
        "grpc": settings.grpc,
        "metrics": settings.metrics,
        "control": list(settings.control),
        "resolvers": settings.resolvers,
        "sequence_header": settings.sequence_header,
        "tls": None if settings.tls is None else dict(settings.tls),
        "token": None if settings.tokens is None else {"file": settings.tokens},
        "drain": max(1, int(settings.drain_s)),
        "slots": [
            {
                "name": name,
                "host": address.host,
                "http": address.http,
                "grpc": address.grpc,
                "metrics": address.metrics,
                "resolve": address.resolve,
                "weight": weights.get(name, 0),
            }
            for name, address in slots.items()
        ],
    }
    text = render("haproxy", "haproxy", variables).text
    return text if settings.mark is None else f"# certificates and tokens: {settings.mark}\n{text}"


def with_weights(config: str, weights: Mapping[str, int]) -> str:
    """The config with other weights of its slots, whatever else it says."""

    def weighed(line: re.Match[str]) -> str:
        return f"{line[1]}{weights.get(line[2], int(line[3]))}"

    return re.sub(r"^(\s*server (\S+) .*?\bweight )(\d+)\b", weighed, config, flags=re.MULTILINE)


def without_weights(config: str) -> str:
    """The config but for weights: what a running proxy would have to be reloaded for."""
    return re.sub(r"\bweight \d+", "weight -", config)
