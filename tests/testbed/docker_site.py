"""A spec with a target in a real engine, whose newcomers can be made bad, and clients that never stop asking."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cli.commands import Outcome, Workshop
from making_onnx import batched_add, save
from traffic import Traffic

from tritonforge.rollout.targets.containers import TARGET

X = np.arange(4, dtype=np.float32).reshape(1, 4)
MODEL = """\
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

PLUS = {plus}
BROKEN = os.environ.get("BROKEN")


class TritonPythonModel:
    def initialize(self, args):
        self.asked = 0
        if BROKEN == "load":
            raise RuntimeError("this model is broken on purpose")

    def execute(self, requests):
        answers = []
        for request in requests:
            self.asked += 1
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = x + np.float32(1000 if BROKEN == "answers" else PLUS)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        if BROKEN == "crash" and self.asked > 60:
            os.kill(os.getppid(), 9)
        return answers
"""
SPEC = """\
retention: {{releases: 4}}
server: {{readiness: {{exit_timeout_s: 3}}}}
models:
  plus: {{source: plus.onnx, max_batch_size: 8}}
  say:
    source: say.py
    inputs: {{x: "FP32[4]"}}
    outputs: {{y: "FP32[4]"}}
    max_batch_size: 8
    golden: {{cases: [say.json]}}
targets:
  there: {target}
"""
QUICK = {
    "weights": [25, 100],
    "analysis": {"hold_s": 1.0, "min_requests": 5, "wait_s": 20.0, "latency_ratio_max": None},
    "ready_s": 60.0,
    "drain_s": 5.0,
    "deadman_s": 60.0,
}


@dataclass
class Site:
    """``settings`` are the target's; what a test changes there goes in with the next :meth:`release`."""

    workshop: Workshop
    settings: dict[str, Any]
    instance: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    answers: set[float] = field(default_factory=set)

    def __post_init__(self) -> None:
        ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
        self.settings = {"name": self.instance, "ports": ports, "rollout": QUICK, **self.settings}
        save(self.workshop.folder / "plus.onnx", batched_add())

    def release(self, plus: int, **settings: Any) -> str:
        """Build a release whose model adds ``plus``; its digest."""
        self.settings.update(settings)
        (self.workshop.folder / "say.py").write_text(MODEL.format(plus=plus))
        case = {"inputs": {"x": [0, 1, 2, 3]}, "outputs": {"y": [value + plus for value in range(4)]}}
        (self.workshop.folder / "say.json").write_text(json.dumps(case))
        self.workshop.write(SPEC.format(target=json.dumps(self.settings)))
        self.workshop.build()
        self.answers.add(float(plus))
        found = self.workshop.current()
        assert found is not None
        return found

    def deploy(self, *words: str, code: int = 0, command: str = "deploy", timeout: float = 180) -> dict[str, Any]:
        return self.workshop.json(command, "there", *words, code=code, timeout=timeout)

    def said(self, *words: str, timeout: float = 180) -> Outcome:
        """A command that is expected to fail, or whose words matter."""
        return self.workshop.run(*words, timeout=timeout)

    def container(self, role: str) -> str:
        return f"tritonforge-{self.instance}-{role}"

    def traffic(self) -> Traffic:
        ports = self.settings["ports"]

        def right(outputs: Mapping[str, Any]) -> None:
            added = float(np.ravel(outputs["y"])[0])
            assert added in self.answers, f"a wrong answer: {added}"

        return Traffic(
            f"127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['grpc']}", "say", {"x": X}, check=right, threads=1
        )

    def remove(self, client: Any) -> None:
        """Whatever has the target's label, and nothing else."""
        ours = {"label": f"{TARGET}={self.instance}"}
        for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
            container.remove(force=True)
        for network in client.networks.list(filters=ours):
            network.remove()
        for volume in client.volumes.list(filters=ours):
            volume.remove(force=True)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def make(root: Path, runtimes: Path, settings: Mapping[str, Any]) -> Site:
    return Site(Workshop.make(root, runtimes), dict(settings))
