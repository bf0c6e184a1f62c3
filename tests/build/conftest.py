"""An installed third-party step for the scheduler to run in real workers, and graphs of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.store import LocalStore
from tritonforge.build.executor import LocalExecutor
from tritonforge.build.graph import Graph, Node
from tritonforge.build.scheduler import Budget, NodeResult, Schedule, run_graph

PLUGIN = '''
import os, signal, sys, time
from tritonforge.artifact.artifact import Draft
from tritonforge.errors import SpecError
from tritonforge.steps.step import Needs

class Toy:
    """Does what its configuration says: wait until so many have started, sleep, then succeed or end in a given way."""

    name = "toy"
    version = 1

    def needs(self, config, input_bytes):
        return Needs(cores=config.get("cores", 1), memory=config.get("memory", 1 << 20))

    def run(self, job):
        def note(what):
            with open(job.config["trace"], "a") as stream:
                stream.write(f"{what} {job.config.get('text', '')} {os.getpid()}\\n")

        note("start")
        print("this is the log of", job.config.get("text"), flush=True)
        patience = time.monotonic() + 20
        while time.monotonic() < patience:
            if open(job.config["trace"]).read().count("start") >= job.config.get("meet", 0):
                break
            time.sleep(0.01)
        time.sleep(job.config.get("sleep", 0))
        match job.config.get("end"):
            case "forge":
                raise SpecError("it is your spec", hint="mend it")
            case "bug":
                return {}["no such key"]
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(7)
            case "sys.exit":
                sys.exit(3)
            case "full":
                raise OSError(28, "No space left on device")
        read = "".join((item.folder / "out").read_text() for item in job.inputs.values())
        (job.out / "out").write_text(read + job.config.get("text", ""))
        note("end")
        return Draft("toy")
'''


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "toy_steps.py").write_text(PLUGIN)
    info = folder / "toy_steps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-steps\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tritonforge.steps]\ntoy = toy_steps:Toy\n")
    return folder


@pytest.fixture
def plugin(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The step ``toy`` is installed, here and in every process that this one starts."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(plugin_folder) + (os.pathsep + inherited if inherited else ""))
    return plugin_folder


@dataclass
class Toys:
    """Builds and runs graphs of ``toy``; ``trace`` is what the steps noted, in the order of time."""

    store: LocalStore
    folder: Path

    @property
    def trace_file(self) -> Path:
        return self.folder / "trace"

    def node(self, name: str, inputs: Mapping[str, str] | None = None, **config: Any) -> Node:
        config = {"text": name, "trace": str(self.trace_file), **config}
        return Node(f"{name}/toy", name, "toy", config, inputs or {})

    def run(
        self, *nodes: Node, cores: int = 2, memory: int = 1 << 30, change: Callable[[Schedule], None] | None = None
    ) -> dict[str, NodeResult]:
        executor = LocalExecutor(cores)
        schedule = Schedule(self.store, executor, Budget(cores, memory), self.folder / "logs")
        if change is not None:
            change(schedule)
        try:
            return run_graph(Graph({node.id: node for node in nodes}), schedule)
        finally:
            executor.close()

    def trace(self) -> list[tuple[str, str]]:
        lines = self.trace_file.read_text().splitlines() if self.trace_file.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]

    def most_at_once(self) -> int:
        running = most = 0
        for what, _ in self.trace():
            running += 1 if what == "start" else -1
            most = max(most, running)
        return most

    def text(self, result: NodeResult) -> str:
        assert result.artifact is not None
        artifact = self.store.artifact(result.artifact)
        assert artifact is not None
        return self.store.blob(artifact.files["out"].sha256).read_text()


@pytest.fixture
def toys(plugin: Path, store: LocalStore, tmp_path: Path) -> Toys:
    return Toys(store, tmp_path)
