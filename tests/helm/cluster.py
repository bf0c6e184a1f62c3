"""A Kubernetes cluster (``KUBECONFIG``) with a namespace of this test's own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.chart import CHART, NAME, helm_program


@dataclass(frozen=True)
class Cluster:
    """What the tests ask of a cluster; helm's release is ``shop``."""

    namespace: str
    fake: bool
    """Whether its pods are said to run, but do not."""

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return _run(["kubectl", "--namespace", self.namespace, *words], stdin)

    def helm(self, *words: str, values: dict[str, Any] | None = None) -> str:
        extra = [] if values is None else ["--values", "-"]
        return _run(
            [helm_program() or "helm", "--namespace", self.namespace, *words, *extra],
            None if values is None else yaml.safe_dump(values),
        )

    def install(self, values: dict[str, Any], *words: str) -> str:
        return self.helm("install", "shop", str(CHART), *words, values=values)

    def upgrade(self, values: dict[str, Any], *words: str) -> str:
        return self.helm("upgrade", "shop", str(CHART), *words, values=values)

    def get(self, kind: str, name: str | None = None, *words: str) -> Any:
        found = json.loads(self.kubectl("get", kind, *([name] if name else []), "--output=json", *words))
        return found if name else found["items"]

    def pods(self, component: str, slot: str | None = None) -> list[Any]:
        labels = f"app.kubernetes.io/component={component}" + (f",tritonforge.dev/slot={slot}" if slot else "")
        return list(self.get("pods", None, f"--selector={labels}"))

    def address(self, service: str = "") -> str:
        return str(self.get("service", NAME + service)["spec"]["clusterIP"])

    def add_volume(self, name: str, folder: str) -> None:
        """A volume of the node's disk, for the one claim that the chart makes."""
        self.kubectl(
            "apply",
            "--filename=-",
            stdin=yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": {"storage": "1Gi"},
                        "accessModes": ["ReadWriteMany"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "claimRef": {"namespace": self.namespace, "name": f"{NAME}-models"},
                        "hostPath": {"path": folder},
                    },
                }
            ),
        )


@contextlib.contextmanager
def cluster_of_its_own(volume: Path | None = None) -> Iterator[Cluster]:
    """A new namespace in the cluster that KUBECONFIG names; skips the test where there is no cluster.

    ``volume`` becomes a volume of the node's disk, for the one claim that the chart makes.
    """
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: there is no Kubernetes cluster to test with")
    if helm_program() is None or shutil.which("kubectl") is None:
        pytest.skip("`helm` or `kubectl` is not on the path")
    try:
        template = "--output=jsonpath={.items[*].status.nodeInfo.containerRuntimeVersion}"
        runtime = _run(["kubectl", "get", "nodes", template], None)
    except AssertionError as error:
        pytest.skip(f"the Kubernetes cluster does not answer: {error}")
    namespace = f"chart-{secrets.token_hex(4)}"
    cluster = Cluster(namespace, fake="docker" not in runtime and "containerd" not in runtime)
    _run(["kubectl", "create", "namespace", namespace], None)
    try:
        if volume is not None:
            cluster.add_volume(namespace, str(volume))
        yield cluster
    finally:
        _run(["kubectl", "delete", "namespace", namespace, "--wait=false"], None)
        if volume is not None:
            _run(["kubectl", "delete", "persistentvolume", namespace, "--wait=false"], None)


def eventually(look: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until ``look`` gives something true."""
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, f"not within {seconds:g} s"
        time.sleep(0.2)


def _run(words: list[str], stdin: str | None) -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout[-2000:]}"
    return done.stdout
