"""A target of the embedded Triton behind a real HAProxy, two releases that tell themselves apart, and clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import making_onnx
import numpy as np
import pytest
import yaml
from traffic import Traffic

from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.journal import TargetState, read_state
from tritonforge.rollout.place import LocalPlace
from tritonforge.rollout.targets.embedded import EmbeddedHost, Public, haproxy_program
from tritonforge.triton import ports
from tritonforge.triton.embedded import Runtime, install

TARGET = "here"
PYTHON = """\
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, arguments):
        {initialize}

    def execute(self, requests):
        {execute}
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + np.float32({addend}))]))
        return answers
"""
ROLLOUT = {
    "weights": [50, 100],
    "analysis": {"hold_s": 0.2, "min_requests": 3, "wait_s": 10, "latency_ratio_max": None},
    "drain_s": 3,
    "deadman_s": 120,
}

_PREPARE = ("host.prepare",)
_STEPS = (
    "agent.lock",
    "agent.append.begin",
    "agent.append.intend.deliver",
    "send",
    "agent.admit",
    "agent.snapshot",
    "agent.append.done.deliver",
    "agent.append.intend.start",
    "agent.weigh",
    "host.start",
    "agent.append.done.start",
    "agent.append.intend.ready",
    "agent.append.done.ready",
    "agent.append.intend.prove",
    "evidence",
    "agent.append.done.prove",
    "agent.append.intend.proxy",
    "host.proxy_up",
    "agent.append.done.proxy",
    "agent.append.intend.shift-50",
    "agent.arm",
    "agent.weigh",
    "agent.append.done.shift-50",
    "agent.append.intend.watch-50",
    "agent.append.done.watch-50",
    "agent.append.intend.shift-100",
    "agent.arm",
    "agent.weigh",
    "agent.append.done.shift-100",
    "agent.append.intend.watch-100",
    "agent.append.done.watch-100",
)
_COMMIT = ("host.settle", "agent.write_file")
_TIDY = (
    "agent.append.committed",
    "agent.weigh",
    "agent.disarm",
    "agent.prune",
    "agent.append.finished",
    "agent.unlock",
)


def _points() -> tuple[str, ...]:
    """Every point that a deployment over an older one passes, in order."""
    found: list[str] = []
    for name in (*_PREPARE, *_STEPS):
        if name == "evidence":
            found.append("evidence.rename")
        else:
            found += [f"rollout.{name}.before", f"rollout.{name}.after"]
    outer, inner = _COMMIT
    found += [f"rollout.{outer}.before", f"rollout.{inner}.before", f"rollout.{inner}.after", f"rollout.{outer}.after"]
    for name in _TIDY:
        found += [f"rollout.{name}.before", f"rollout.{name}.after"]
    return tuple(found)


POINTS = _points()
COMMITTED = POINTS.index("rollout.agent.append.committed.after")
"""From this point on the new release is what the target serves."""
SHIFTED = next(number for number, name in enumerate(POINTS) if name == "rollout.agent.arm.after")
"""From this point on the dead-man timer is armed."""


def runtime_or_skip() -> Runtime:
    """The embedded Triton and HAProxy of this machine; else the test is skipped with the reason."""
    try:
        haproxy_program()
        return install()
    except EnvironmentLacks as error:
        pytest.skip(f"an embedded target cannot run here: {error.message}")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended: its exit code, its JSON object, and what it said."""

    code: int
    answer: dict[str, Any]
    words: str

    @property
    def said(self) -> str:
        """What a person learns of it: the notes and the message."""
        parts = [*self.answer.get("notes", []), str(self.answer.get("message") or ""), *self.answer.get("details", [])]
        return "; ".join(part for part in parts if part and not part.startswith("Triton 2"))


@dataclass
class Site:
    """A spec with one target; ``releases`` are digests by what the model adds to its input."""

    root: Path
    runtime: Runtime
    public: Public = field(default_factory=lambda: Public("127.0.0.1", *(ports.free("127.0.0.1") for _ in range(3))))
    rollout: dict[str, Any] = field(default_factory=lambda: dict(ROLLOUT))
    target: dict[str, Any] = field(default_factory=dict)
    spec_keys: dict[str, Any] = field(default_factory=dict)
    releases: dict[float, str] = field(default_factory=dict)
    folder: Path | None = None
    model: dict[str, Any] | None = None
    """Keys of the model where it is not the ONNX one."""

    def write(self) -> None:
        """The spec as the fields say it."""
        spec_folder = self.root / "spec"
        spec_folder.mkdir(parents=True, exist_ok=True)
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        if not (home / "runtimes").exists():
            (home / "runtimes").symlink_to(self.runtime.root.parent)
        public = self.public
        target = {
            "kind": "embedded",
            "folder": str(self.target_root.relative_to(spec_folder)) if self.folder is None else str(self.folder),
            "ports": {"bind": public.bind, "http": public.http, "grpc": public.grpc, "metrics": public.metrics},
            "rollout": self.rollout,
            **self.target,
        }
        spec = {
            "apiVersion": "tritonforge/v1",
            "name": "tiny",
            "models": {"net": self.model or {"source": "net.onnx", "max_batch_size": 4}},
            "retention": {"releases": 20},
            "targets": {TARGET: target},
            **self.spec_keys,
        }
        (spec_folder / "forge.yaml").write_text(yaml.safe_dump(spec))

    @property
    def target_root(self) -> Path:
        return self.root / "spec" / "t" if self.folder is None else self.folder

    @property
    def host(self) -> EmbeddedHost:
        return EmbeddedHost(self.target_root, self.runtime, self.public)

    @property
    def place(self) -> LocalPlace:
        return LocalPlace(self.target_root)

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITONFORGE_")}
        return {**kept, "TRITONFORGE_HOME": str(self.root / "home"), "OMP_NUM_THREADS": "1", **extra}

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """A command in a session of its own, so that it can be killed with all that it waits for."""
        spec = str(self.root / "spec" / "forge.yaml")
        return subprocess.Popen(
            [sys.executable, "-m", "tritonforge", *arguments, "--spec", spec, "--json"],
            env=self.environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **extra: str) -> Ran:
        return ended(self.start(*arguments, **extra))

    def build(self, addend: float) -> str:
        """A release whose model adds ``addend``."""
        making_onnx.save(self.root / "spec" / "net.onnx", making_onnx.batched_add(addend))
        ran = self.run("build")
        assert ran.code == 0, ran.words
        self.releases[addend] = ran.answer["platforms"][0]["release"]
        return self.releases[addend]

    def build_python(self, addend: float, execute: str, expected: float | None = None, initialize: str = "") -> str:
        """A release of a Python model that adds ``addend``; the golden case says that it adds ``expected``."""
        case = {"inputs": {"x": [1.0, 2.0, 3.0, 4.0]}}
        said = addend if expected is None else expected
        case["outputs"] = {"y": [value + said for value in case["inputs"]["x"]]}  # type: ignore[assignment, index]
        (self.root / "spec" / "cases.json").write_text(json.dumps([case]))
        (self.root / "spec" / "net.py").write_text(
            PYTHON.format(execute=execute, initialize=initialize or "pass", addend=addend)
        )
        self.model = {
            "source": "net.py",
            "inputs": {"x": "FP32[4]"},
            "outputs": {"y": "FP32[4]"},
            "max_batch_size": 4,
            "golden": {"cases": ["cases.json"]},
        }
        self.write()
        try:
            return self.build(addend)
        finally:
            self.model = None
            self.write()

    def settings(self, **changes: Any) -> None:
        """Write the spec anew with other settings of the rollout."""
        self.rollout = {**self.rollout, **changes}
        self.write()

    def deploy(self, addend: float, *arguments: str, **extra: str) -> Ran:
        return self.run("deploy", TARGET, "--release", self.releases[addend], *arguments, **extra)

    def state(self) -> TargetState:
        return read_state(self.place.call("read")["journal"])

    def pending(self) -> Any:
        return self.place.call("read")["pending"]

    @property
    def serving(self) -> float:
        """What the release adds that the journal says is served."""
        release = self.state().release
        return next(addend for addend, digest in self.releases.items() if digest == release)

    @property
    def other(self) -> float:
        """The release that does not serve."""
        return next(addend for addend in self.releases if addend != self.serving)

    def forget(self, addend: float) -> None:
        """Delete a release on the target, and end the server that keeps it warm: all of it must be done again."""
        committed = self.state().committed
        assert committed is not None
        self.host.stop("green" if committed["active"] == "blue" else "blue", 0.0)
        kept = {item["sha256"] for item in self._files(self.serving)}
        shutil.rmtree(self.target_root / "snapshots" / self.releases[addend], ignore_errors=True)
        for item in self._files(addend):
            if item["sha256"] not in kept:
                (self.target_root / "blobs" / item["sha256"][:2] / item["sha256"]).unlink(missing_ok=True)

    def _files(self, addend: float) -> list[dict[str, Any]]:
        folder = self.root / "spec" / "build" / "local" / "releases" / self.releases[addend]
        document = json.loads((folder / "release.json").read_text())
        return [content for entry in document["models"] for content in entry["files"].values()]

    @contextmanager
    def traffic(self, **changes: Any) -> Iterator[Traffic]:
        """Clients of the public ports, over HTTP and gRPC; an answer of neither release is a failure."""
        public = self.public
        values = np.arange(4, dtype=np.float32).reshape(1, 4)
        clients = Traffic(
            f"127.0.0.1:{public.http}",
            f"127.0.0.1:{public.grpc}",
            "net",
            {"x": values},
            lambda outputs: self._known(outputs["y"], values),
            pause=0.03,
            **changes,
        )
        with clients:
            yield clients

    def _known(self, answered: Any, values: Any) -> None:
        added = set((np.asarray(answered, np.float32) - values).reshape(-1).tolist())
        if not (len(added) == 1 and added <= set(self.releases)):
            raise ValueError(f"no release adds {added}")

    def answer(self) -> float:
        """What the model that answers at the public port adds."""
        seen: list[float] = []
        values = np.zeros((1, 4), np.float32)
        clients = Traffic(
            f"127.0.0.1:{self.public.http}",
            None,
            "net",
            {"x": values},
            lambda outputs: seen.append(float(outputs["y"].reshape(-1)[0])),
        )
        with clients:
            clients.wait_for(1, 10)
        return seen[-1]

    def kill(self, unit: str) -> None:
        """SIGKILL a server, the proxy or the timer, with its children."""
        said = json.loads((self.target_root / "servers" / f"{unit}.json").read_text())
        os.killpg(int(said["pid"]), signal.SIGKILL)

    def wait_until_reverted(self, seconds: float = 60.0) -> None:
        """Wait until nothing is pending any more."""
        ends = time.monotonic() + seconds
        while self.pending() is not None:
            assert time.monotonic() < ends, "the dead-man timer did not go off"
            time.sleep(0.2)

    def settled(self) -> None:
        """Nothing is left of any rollout."""
        read = self.place.call("read")
        state = read_state(read["journal"])
        assert (state.unfinished, read["lock"], read["pending"]) == (None, None, None)
        assert not list(self.target_root.glob("snapshots/.*"))
        assert set(read["snapshots"]) <= set(self.releases.values())

    def close(self) -> None:
        if self.target_root.exists():
            self.host.remove()


def ended(process: subprocess.Popen[str], seconds: float = 240.0) -> Ran:
    """Wait for a command."""
    out, words = process.communicate(timeout=seconds)
    answer: dict[str, Any] = {}
    if out.strip():
        answer = json.loads(out)
    return Ran(process.returncode, answer, words)


@contextmanager
def open_site(root: Path, addends: tuple[float, ...] = (1.0, 2.0), **settings: Any) -> Iterator[Site]:
    """A site whose first release serves; everything that it started ends with it."""
    site = Site(root, runtime_or_skip(), **settings)
    site.write()
    try:
        for addend in addends:
            site.build(addend)
        ran = site.deploy(addends[0])
        assert ran.code == 0, ran.words
        yield site
    finally:
        site.close()


@dataclass
class Witness:
    """Clients that go on during a test; what they saw since it began."""

    traffic: Traffic
    asked: int = 0
    failed: int = 0

    def begin(self) -> Witness:
        return Witness(self.traffic, self.traffic.total, len(self.traffic.failures))

    @property
    def requests(self) -> int:
        return self.traffic.total - self.asked

    @property
    def failures(self) -> list[str]:
        return self.traffic.failures[self.failed :]
