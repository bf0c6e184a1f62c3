"""The key of a node: the full sha256 over everything that its result depends on."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from tritonforge.artifact.digest import digest_of
from tritonforge.build.facets import facet
from tritonforge.build.graph import Node
from tritonforge.errors import EnvironmentLacks
from tritonforge.steps.registry import step
from tritonforge.steps.step import Needs

_EXTRAS: Final = {
    "onnxslim": "simplify",
    "torch": "torch",
    "onnxscript": "torch",
    "safetensors": "torch",
    "transformers": "huggingface",
    "tokenizers": "huggingface",
    "tensorflow": "tensorflow",
    "tf2onnx": "tensorflow",
    "openvino": "openvino",
}
"""Which extra of tritonforge brings a distribution."""

_OTHER_BUILDS: Final = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"),
    "onnxruntime": ("onnxruntime-gpu",),
}
"""Other distributions of the same package."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A node's key, what it was made of (for saying why something runs), and what the run needs (but its memory,
    which :func:`memory_of` tells)."""

    key: str
    material: Mapping[str, Any]
    needs: Needs


def key_of(node: Node, inputs: Mapping[str, str]) -> Keyed:
    """The key of ``node``, given the digests of its input artifacts by role.

    Raises:
        EnvironmentLacks: a tool that the step declares is not installed, or hardware that it is tied to is not here.
    """
    made = step(node.step)
    needs = made.needs(node.config, 0)
    material = {
        "step": node.step,
        "step_version": made.version,
        "configuration": dict(node.config),
        "inputs": dict(inputs),
        "sources": {path: file.sha256 for path, file in node.sources.items()},
        "tools": {name: tool_version(name) for name in needs.tools},
        "facets": {name: facet(name) for name in needs.facets},
    }
    return Keyed(digest_of(material), material, needs)


def memory_of(node: Node, input_bytes: int) -> int:
    """What a run of ``node`` takes at most, in bytes, when it reads so many."""
    return step(node.step).needs(node.config, input_bytes).memory


@cache
def tool_version(name: str) -> str:
    """The installed version of a distribution, whichever of its builds is here.

    Raises:
        EnvironmentLacks: it is not installed; the extra that brings it is named.
    """
    for build in (name, *_OTHER_BUILDS.get(name, ())):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(build)
    extra = _EXTRAS.get(name)
    raise EnvironmentLacks(
        f"the package {name} is not installed",
        hint=f"pip install {name}" if extra is None else f"pip install 'tritonforge[{extra}]'",
    )


def why(material: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """What changed since the last build, in words."""
    if before is None:
        return ["it was never built"]
    reasons = []
    if before.get("step_version") != material["step_version"]:
        reasons.append(f"the step {material['step']} is new (version {material['step_version']})")
    reasons += _changes("configuration", before.get("configuration", {}), material["configuration"], show=True)
    reasons += _changes("source", before.get("sources", {}), material["sources"])
    reasons += _changes("input", before.get("inputs", {}), material["inputs"])
    reasons += _changes("tool", before.get("tools", {}), material["tools"], show=True)
    reasons += _changes("hardware", before.get("facets", {}), material["facets"], show=True)
    return reasons or ["its artefact is no longer in the store"]


def _changes(what: str, before: Any, now: Any, *, show: bool = False) -> list[str]:
    reasons = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name not in before:
            reasons.append(f"{what} '{name}' is new")
        elif name not in now:
            reasons.append(f"{what} '{name}' is gone")
        elif show:
            reasons.append(f"{what} '{name}' changed: {_short(old)} → {_short(new)}")
        else:
            reasons.append(f"{what} '{name}' changed ({str(old)[:8]} → {str(new)[:8]})")
    return reasons


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
