"""A spec with a target in a real cluster, whose newcomers can be made bad, and clients that never stop asking."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cli.commands import Outcome, Workshop
from making_onnx import batched_add, save
from traffic import Traffic

from testbed.docker_site import MODEL, QUICK, SPEC, X

SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}}
VALUES: dict[str, Any] = {
    "server": {"resources": SMALL, "sharedMemory": "64Mi"},
    "shutdown": {"drainSeconds": 2, "exitTimeoutSeconds": 5},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
    "proxy": {"replicas": 2, "resources": SMALL, "shutdown": {"drainSeconds": 2, "hardStopSeconds": 5}},
    "keeper": {"resources": SMALL},
    "topologySpread": [],
    "models": {"pvc": {"create": {"storageClassName": "-"}}},
}


@dataclass
class Cluster:
    """What tests ask of a cluster, in one namespace."""

    namespace: str
    fake: bool
    """Whether its pods are said to run, but do not."""

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return run(["kubectl", "--namespace", self.namespace, *words], stdin)

    def helm(self, *words: str) -> str:
        return run(["helm", "--namespace", self.namespace, *words])

    def get(self, kind: str, name: str | None = None, selector: str | None = None) -> Any:
        words = [kind, *([name] if name else []), "--output=json", *([f"--selector={selector}"] if selector else [])]
        found = json.loads(self.kubectl("get", *words))
        return found if name else found["items"]

    def uids(self, selector: str) -> set[str]:
        """Of the pods that are not about to end."""
        pods = self.get("pods", selector=selector)
        return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def history(self, release: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.helm("history", release, "--output", "json"))
        return found

    def add_volume(self, name: str, claim: str, folder: Path) -> None:
        """A volume of the node's disk for a claim that the chart makes."""
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        spec = {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": self.namespace, "name": claim},
            "hostPath": {"path": str(folder)},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(volume))


def open_cluster(namespace: str) -> Cluster:
    """The cluster that KUBECONFIG names; skips the test where there is none."""
    pytest.importorskip("kubernetes")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: there is no Kubernetes cluster to test with")
    for program in ("helm", "kubectl"):
        if shutil.which(program) is None:
            pytest.skip(f"`{program}` is not on the path")
    try:
        runtime = run(["kubectl", "get", "nodes", "--output=jsonpath={..nodeInfo.containerRuntimeVersion}"])
    except AssertionError as error:
        pytest.skip(f"the Kubernetes cluster does not answer: {error}")
    run(["kubectl", "create", "namespace", namespace])
    return Cluster(namespace, fake="docker" not in runtime and "containerd" not in runtime)


def close_cluster(cluster: Cluster, volumes: list[str]) -> None:
    cluster.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")
    run(["kubectl", "delete", "namespace", cluster.namespace, "--wait=true", "--timeout=180s"])
    for volume in volumes:
        run(["kubectl", "delete", "persistentvolume", volume, "--ignore-not-found"])


@dataclass
class Site:
    """``values`` are the chart's; what a test changes there goes in with the next :meth:`release`."""

    workshop: Workshop
    cluster: Cluster
    image: str
    haproxy: str
    routes: str = "haproxy"
    values: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(VALUES)))
    instance: str = field(default_factory=lambda: f"t{secrets.token_hex(3)}")
    answers: set[float] = field(default_factory=set)

    def __post_init__(self) -> None:
        save(self.workshop.folder / "plus.onnx", batched_add())

    def release(self, plus: int, *, broken: str | None = None, image: str | None = None) -> str:
        """Build a release whose model adds ``plus``; its digest."""
        environment = [{"name": "OMP_NUM_THREADS", "value": "1"}]
        environment += [{"name": "BROKEN", "value": broken}] if broken else []
        self.values["server"]["env"] = environment
        (self.workshop.folder / "values.yaml").write_text(yaml.safe_dump(self.values))
        target = {
            "kind": "helm",
            "name": self.instance,
            "namespace": self.cluster.namespace,
            "image": image or self.image,
            "values": ["values.yaml"],
            "proxy": {"image": self.haproxy},
            "routes": self.routes,
            "rollout": {**QUICK, "deadman_s": 30.0, "ready_s": 120.0},
        }
        (self.workshop.folder / "say.py").write_text(MODEL.format(plus=plus))
        case = {"inputs": {"x": [0, 1, 2, 3]}, "outputs": {"y": [value + plus for value in range(4)]}}
        (self.workshop.folder / "say.json").write_text(json.dumps(case))
        self.workshop.write(SPEC.format(target=json.dumps(target)))
        self.workshop.build()
        self.answers.add(float(plus))
        found = self.workshop.current()
        assert found is not None
        return found

    def deploy(self, *words: str, code: int = 0, command: str = "deploy", timeout: float = 400) -> dict[str, Any]:
        return self.workshop.json(command, "there", *words, code=code, timeout=timeout)

    def said(self, *words: str, timeout: float = 400) -> Outcome:
        """A command that is expected to fail, or whose words matter."""
        return self.workshop.run(*words, timeout=timeout)

    def traffic(self) -> Traffic:
        address = self.cluster.get("service", self.instance)["spec"]["clusterIP"]

        def right(outputs: Mapping[str, Any]) -> None:
            added = float(np.ravel(outputs["y"])[0])
            assert added in self.answers, f"a wrong answer: {added}"

        return Traffic(f"{address}:8000", f"{address}:8001", "say", {"x": X}, check=right, threads=1)


def eventually(look: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until ``look`` gives something true."""
    ends = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < ends, f"not within {seconds:g} s"
        time.sleep(0.2)


def run(words: list[str], stdin: str | None = None) -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}{done.stdout[-2000:]}"
    return done.stdout
