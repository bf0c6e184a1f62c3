"""Values of the chart: laid over each other as Helm does it, and what tritonforge itself puts in."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tritonforge.artifact.digest import digest_of
from tritonforge.errors import SpecError
from tritonforge.rollout.host import SLOTS

Values = dict[str, Any]

OF_A_SLOT: Final = (
    "affinity",
    "gpu",
    "models",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "podSecurity",
    "priorityClassName",
    "probes",
    "server",
    "shutdown",
    "tolerations",
    "topologySpread",
)
"""Values that decide how a slot's pods run. Each slot keeps its own, so that a newcomer changes nothing there."""

OF_ALL: Final = ("imagePullSecrets", "metrics", "proxy", "serviceAccount", "workload")
"""Other values that decide how pods run; a slot has none of them for itself."""

OWNED: Final = (
    "traffic",
    "slots.blue.enabled",
    "slots.blue.release",
    "slots.blue.image",
    "slots.blue.values",
    "slots.blue.adopted",
    "slots.green.enabled",
    "slots.green.release",
    "slots.green.image",
    "slots.green.values",
    "slots.green.adopted",
    "keeper.enabled",
    "keeper.agent",
    "proxy.enabled",
    "gatewayAPI.enabled",
    "models.source",
    "server.arguments",
)
"""Values that a rollout decides."""

_EXIT: Final = "--exit-timeout-secs="
_SECRET: Final = re.compile(r"(?i)(^|\.)env(\[|\.|$)|token|password|secret|credential|apikey")


def merge(under: Any, over: Any) -> Any:
    """``over`` laid over ``under`` as Helm does: maps join, ``null`` takes a key away, all else replaces."""
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return copy.deepcopy(over)
    found = {key: copy.deepcopy(value) for key, value in under.items()}
    for key, value in over.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), value)
    return found


def layered(layers: Sequence[Mapping[str, Any]]) -> Values:
    """Several values files as one; a ``null`` stays, as it takes away what the chart itself has."""

    def over(under: Any, upper: Any) -> Any:
        if not isinstance(under, Mapping) or not isinstance(upper, Mapping):
            return copy.deepcopy(upper)
        joined = {key: over(under.get(key), value) for key, value in upper.items()}
        return {**copy.deepcopy(dict(under)), **joined}

    found: Values = {}
    for layer in layers:
        found = over(found, layer)
    return found


def at(values: Mapping[str, Any], path: str) -> Any:
    """What stands at ``a.b.c``; None where there is nothing."""
    found: Any = values
    for key in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def refuse_owned(values: Mapping[str, Any], where: str) -> None:
    """Refuse values that a rollout decides.

    Raises:
        SpecError: there are some.
    """
    found = [path for path in OWNED if at(values, path) not in (None, {}, [], "")]
    if found:
        raise SpecError(
            "a rollout decides these values of the chart",
            found=", ".join(found),
            hint=f"leave them out of {where}; `tritonforge deploy` sets them",
        )


def image_parts(name: str) -> dict[str, str]:
    """``REPOSITORY[:TAG][@sha256:…]`` as the chart wants it."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = rest, ""
    return {"repository": repository, "tag": tag, "digest": digest}


def slot_values(effective: Mapping[str, Any], arguments: Sequence[str]) -> Values:
    """What a slot keeps for itself of all values (the chart's own included), with its release's arguments."""
    found: Values = {key: copy.deepcopy(effective[key]) for key in OF_A_SLOT if key in effective}
    server = found.setdefault("server", {})
    server["arguments"] = [item for item in arguments if not item.startswith(_EXIT)]
    for item in arguments:
        if item.startswith(_EXIT):
            # The chart derives from it how long a pod may take to end.
            found.setdefault("shutdown", {})["exitTimeoutSeconds"] = int(item[len(_EXIT) :])
    return found


def marks(effective: Mapping[str, Any], keys: Sequence[str] = (*OF_A_SLOT, *OF_ALL)) -> dict[str, str]:
    """A short digest by key: tells that values changed, and shows none."""
    return {f"values.{key}": digest_of(effective[key])[:12] for key in keys if key in effective}


def fit_traffic(values: Values) -> None:
    """Have the traffic go to a slot that runs, where its own does not: the chart refuses anything else."""
    running = [
        slot for slot in SLOTS if at(values, f"slots.{slot}.enabled") or at(values, f"slots.{slot}.adopted.selector")
    ]
    traffic = values.setdefault("traffic", {"blue": 100, "green": 0})
    if running and not all(weight == 0 or slot in running for slot, weight in traffic.items()):
        values["traffic"] = {slot: 100 if slot == running[0] else 0 for slot in SLOTS}


def changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """What differs between two values, a line each; what may be a secret is not shown."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from changes(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        if _SECRET.search(path) or _SECRET.search(str(before)) or _SECRET.search(str(after)):
            yield f"{path}: changed"
        else:
            yield f"{path}: {_short(before)} → {_short(after)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
