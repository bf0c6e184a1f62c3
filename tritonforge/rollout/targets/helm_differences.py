"""What a start would change in the chart's values, in lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tritonforge.rollout.targets.helm_installation import Installation, serving
from tritonforge.rollout.targets.helm_values import Values, at, changes, slot_values

_LEFT_OUT: Final = frozenset({"gatewayAPI", "keeper", "proxy", "slots", "traffic"})
"""Keys that are compared otherwise, or that a rollout decides."""


def value_differences(installation: Installation, now: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """Between the values that are deployed (``now``) and those of a start with the server's ``arguments``: the serving
    slot's, the proxy's, and the rest. Nothing that may be a secret is shown."""
    own = at(now, f"slots.{serving(now)}.values") or {}
    found = list(changes(own, slot_values(installation.effective, arguments)))
    wanted = installation.wanted(now, at(now, "keeper.image") or {})
    left_out = _LEFT_OUT | set(own)
    before, after = ({key: item for key, item in some.items() if key not in left_out} for some in (now, wanted))
    found += changes(before, after)
    if not installation.gateway and (now.get("proxy") or {}).get("replicas"):
        found += changes(_unmarked(now["proxy"]), _unmarked(installation.proxy(None)), "proxy")
    return found


def _unmarked(proxy: Mapping[str, Any]) -> Values:
    return {key: value for key, value in proxy.items() if key != "podAnnotations"}
