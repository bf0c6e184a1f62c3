"""The chart as its users have it: rendered by the ``helm`` program."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[2] / "helm" / "tritonforge"
NAME: Final = "shop-tritonforge"
"""What resources are called in these tests."""

Document = dict[str, Any]


def helm_program() -> str | None:
    """``HELM`` from the environment, else ``helm`` on the path."""
    return os.environ.get("HELM") or shutil.which("helm")


class Refusal(Exception):
    """What helm said when it did not render."""


@dataclass(frozen=True)
class Rendered:
    """The resources of one rendering."""

    documents: list[Document]

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Document:
        """The resource ``<name><suffix>``."""
        found = [document for document in self.of_kind(kind) if document["metadata"]["name"] == NAME + suffix]
        assert len(found) == 1, [(item["kind"], item["metadata"]["name"]) for item in self.documents]
        return found[0]

    def names(self, kind: str) -> list[str]:
        return sorted(document["metadata"]["name"] for document in self.of_kind(kind))

    def pod(self, suffix: str, kind: str = "Deployment") -> Document:
        """The pod's spec of a workload."""
        spec: Document = self.one(kind, suffix)["spec"]["template"]["spec"]
        return spec

    def server(self, slot: str = "blue") -> Document:
        """The container of a slot."""
        container: Document = self.pod(f"-{slot}")["containers"][0]
        return container

    def haproxy(self) -> str:
        """haproxy.cfg."""
        return str(self.one("ConfigMap", "-proxy")["data"]["haproxy.cfg"])


def render(
    values: Mapping[str, Any] | None = None, *, kubernetes: str = "1.34.0", apis: tuple[str, ...] = ()
) -> Rendered:
    """The chart's resources under ``values``.

    Raises:
        Refusal: helm did not render; its words.
    """
    return _rendered(yaml.safe_dump(dict(values or {})), kubernetes, apis)


@functools.cache
def _rendered(values: str, kubernetes: str, apis: tuple[str, ...]) -> Rendered:
    words = [helm_program() or "helm", "template", "shop", str(CHART), "--namespace", "shop", "--values", "-"]
    words += ["--kube-version", kubernetes, *(f"--api-versions={api}" for api in apis)]
    done = subprocess.run(words, input=values, capture_output=True, text=True)
    if done.returncode:
        raise Refusal(done.stderr)
    return Rendered([document for document in yaml.safe_load_all(done.stdout) if document])


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values laid over each other, as helm does."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result
