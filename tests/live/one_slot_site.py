"""An embedded target with one slot: releases that tell themselves apart, and clients that count what fails."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import making_onnx
import numpy as np
import yaml
from cli.commands import PROGRAM, Outcome, Workshop
from onnx import helper
from traffic import Traffic

from tritonforge.rollout.journal import TargetState, read_state
from tritonforge.rollout.place import LocalPlace
from tritonforge.rollout.targets.embedded import EmbeddedHost, Public
from tritonforge.triton import ports
from tritonforge.triton.embedded import Runtime

PLUS = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.added = {added}

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", (x + {added}).astype(np.float32))]))
        return answers
"""
FALLS = PLUS.replace("self.added = {added}", "raise RuntimeError('the weights of {added} are gone')")
TENSORS = {"inputs": {"X": "FP32[1]"}, "outputs": {"Y": "FP32[1]"}, "max_batch_size": 8, "requirements": ["numpy"]}
ROLLOUT = {
    "analysis": {"hold_s": 0.3, "min_requests": 3, "wait_s": 20, "latency_ratio_max": None},
    "drain_s": 5,
    "deadman_s": 8,
    "ready_s": 60,
}
X = np.full((1, 1), 100.0, np.float32)


@dataclass
class Site:
    """A spec with one target called ``edge``."""

    shop: Workshop
    runtime: Runtime
    public: Public = field(default_factory=lambda: Public("127.0.0.1", *(ports.free("127.0.0.1") for _ in range(3))))
    rollout: dict[str, Any] = field(default_factory=lambda: dict(ROLLOUT))

    @staticmethod
    def make(root: Path, runtime: Runtime) -> Site:
        return Site(Workshop.make(root, runtime.root.parent), runtime)

    @property
    def root(self) -> Path:
        """The target's folder."""
        return self.shop.folder / "target"

    @property
    def host(self) -> EmbeddedHost:
        return EmbeddedHost(self.root, self.runtime, self.public)

    def release(
        self,
        plus: Mapping[str, float],
        *,
        golden: bool = True,
        code: str = PLUS,
        more: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> str:
        """Build a release of models that add a number; its digest. ``more`` are keys of each model by its name."""
        models: dict[str, Any] = {}
        for name, added in plus.items():
            self.python(name, added, code)
            models[name] = {**self.model(name), **(more or {}).get(name, {})}
            if golden:
                cases = [{"inputs": {"X": [1.0]}, "outputs": {"Y": [1.0 + added]}}]
                (self.shop.folder / name / "cases.json").write_text(json.dumps(cases))
                models[name]["golden"] = {"cases": [f"{name}/cases.json"]}
        return self.build({"models": models, **keys})

    def python(self, name: str, added: float, code: str = PLUS) -> None:
        """``NAME/model.py``: Y = X + added."""
        folder = self.shop.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "model.py").write_text(code.replace("{added}", repr(added)))

    def model(self, name: str) -> dict[str, Any]:
        """The spec of such a model."""
        return {"source": f"{name}/model.py", **TENSORS}

    def build(self, keys: Mapping[str, Any]) -> str:
        """Build what the spec says with these keys; the digest."""
        target = {
            "kind": "embedded",
            "strategy": "one-slot",
            "folder": "target",
            "ports": {"http": self.public.http, "grpc": self.public.grpc, "metrics": self.public.metrics},
            "rollout": self.rollout,
        }
        self.shop.write(yaml.safe_dump({**keys, "targets": {"edge": target}}, sort_keys=False))
        self.shop.build()
        current = self.shop.current()
        assert current is not None
        return current

    def onnx(self, name: str, factor: float) -> None:
        """``NAME.onnx``: Y = X * factor."""
        node = helper.make_node("Mul", ["X", "c"], ["Y"])
        shown = [making_onnx.value(tensor, ["N", 1]) for tensor in "XY"]
        made = making_onnx.model([node], shown[:1], shown[1:], [making_onnx.constant("c", np.float32([factor]))])
        making_onnx.save(self.shop.folder / f"{name}.onnx", made)

    def deploy(self, *words: str, code: int = 0) -> dict[str, Any]:
        return self.shop.json("deploy", "edge", *words, code=code, timeout=300)

    def rollback(self, *words: str, code: int = 0) -> dict[str, Any]:
        return self.shop.json("rollback", "edge", *words, code=code, timeout=300)

    def run(self, *words: str, fault: str | None = None, trace: Path | None = None) -> Outcome:
        """A command that may be killed at a point."""
        environment = dict(self.shop.environment)
        if fault is not None:
            environment["TRITONFORGE_FAULT"] = fault
        if trace is not None:
            environment["TRITONFORGE_TRACE"] = str(trace)
        done = subprocess.run(
            [str(PROGRAM), *words, "--json"],
            cwd=self.shop.folder,
            env=environment,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def state(self) -> TargetState:
        return read_state(LocalPlace(self.root).call("read")["journal"])

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The journal's events of a kind."""
        return [event for event in LocalPlace(self.root).call("read")["journal"] if event["event"] == kind]

    def served_config(self, model: str) -> str:
        """The config in force, as text."""
        from tritonforge.triton.client import Client

        with self.host.public() as connection, Client(connection) as client:
            return str(client.model_config(model))

    def load(self, model: str) -> None:
        """A load call as the server's operator could make it."""
        from tritonforge.triton.client import Client

        with self.host.reach("blue") as connection, Client(connection) as client:
            client.load(model)

    def live(self) -> dict[str, list[str]]:
        """Folders and version folders as they are on disk."""
        folder = self.root / "live"
        return {
            path.name: sorted(item.name for item in path.iterdir() if item.is_dir())
            for path in sorted(folder.iterdir())
        }

    def index(self) -> dict[str, list[str]]:
        """The READY versions by model, as the server says."""
        from tritonforge.triton.client import Client

        found: dict[str, list[str]] = {}
        with self.host.reach("blue") as connection, Client(connection) as client:
            for entry in client.index():
                if entry.state == "READY":
                    found.setdefault(entry.name, []).append(entry.version)
        return {name: sorted(versions) for name, versions in sorted(found.items())}

    def ask(self, model: str) -> float:
        """What a client gets for 100."""
        from tritonforge.triton.client import Client

        with self.host.public() as connection, Client(connection) as client:
            return float(next(iter(client.infer(model, {"X": X}).values())).reshape(-1)[0])

    @contextmanager
    def traffic(self, model: str, *right: float, threads: int = 1) -> Iterator[Clients]:
        """Clients that never stop; every answer must be one of ``right``."""
        seen: Counter[float] = Counter()

        def check(outputs: dict[str, Any]) -> None:
            value = float(next(iter(outputs.values())).reshape(-1)[0])
            assert value in right, f"{value} is no answer of any release"
            seen[value] += 1

        asking = Traffic(
            f"127.0.0.1:{self.public.http}", f"127.0.0.1:{self.public.grpc}", model, {"X": X}, check, threads
        )
        with asking:
            yield Clients(asking, seen)

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.host.remove()


@dataclass(frozen=True, slots=True)
class Clients:
    """Running clients, and how often each answer came."""

    traffic: Traffic
    seen: Counter[float]

    def calm(self, requests: int = 40) -> None:
        """Some more requests, and none that failed ever."""
        self.traffic.wait_for(requests)
        assert self.traffic.failures == [], self.traffic.failures[:5]
