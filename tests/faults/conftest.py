"""A tiny spec, built by the real program in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import making_onnx
import pytest

SPEC = """\
apiVersion: tritonforge/v1
name: tiny
models:
  net: {source: net.onnx, max_batch_size: 4}
  label:
    source: label.py
    inputs: {X: "FP32[4]"}
    outputs: {Y: "FP32[4]"}
retention: {releases: 1}
"""
LABEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []  # %s\n"


@dataclass
class Site:
    """A folder with a spec, and a store of its own."""

    root: Path

    @property
    def spec(self) -> Path:
        return self.root / "spec"

    @property
    def build(self) -> Path:
        return self.spec / "build" / "local"

    @property
    def lock(self) -> bytes | None:
        path = self.spec / "forge.lock"
        return path.read_bytes() if path.exists() else None

    def write(self, label: str = "first") -> Site:
        """The spec; ``label`` is what the Python model says of itself."""
        self.spec.mkdir(parents=True, exist_ok=True)
        (self.spec / "forge.yaml").write_text(SPEC)
        (self.spec / "label.py").write_text(LABEL % label)
        making_onnx.save(self.spec / "net.onnx", making_onnx.batched_add())
        return self

    def copy(self, root: Path) -> Site:
        """Another site just like this one, that shares nothing with it."""
        shutil.copytree(self.root, root, symlinks=True)
        return Site(root)

    def command(self, *arguments: str) -> list[str]:
        spec = str(self.spec / "forge.yaml")
        return [sys.executable, "-m", "tritonforge", *arguments, "--spec", spec, "--json"]

    def environment(self, fault: str | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "TRITONFORGE_FAULT"}
        kept["TRITONFORGE_HOME"] = str(self.root / "home")
        return kept if fault is None else {**kept, "TRITONFORGE_FAULT": fault}

    def run(self, fault: str | None = None, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("build", *arguments),
            env={**self.environment(fault), **extra},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """A build in a session of its own."""
        return subprocess.Popen(
            self.command("build", *arguments),
            env={**self.environment(), **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def good(self, *arguments: str, **extra: str) -> dict[str, Any]:
        """A build that nothing disturbs; what it says of its platform."""
        ran = self.run(None, *arguments, **extra)
        assert ran.returncode == 0, ran.stderr
        outcome: dict[str, Any] = json.loads(ran.stdout)["platforms"][0]
        return outcome

    def current(self) -> str | None:
        """The digest of the current release, once it was seen to be whole; None where there is none."""
        link = self.build / "current"
        if not link.is_symlink():
            assert not link.exists()
            return None
        document = json.loads((link / "release.json").read_bytes())
        for entry in document["models"]:
            for path, content in entry["files"].items():
                assert (link / "models" / entry["folder"] / path).stat().st_size == content["size"]
        return link.readlink().name

    def files(self) -> dict[str, bytes]:
        """All files of the current release."""
        top = (self.build / "current").resolve()
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    def left_over(self) -> list[str]:
        """What only a build in progress may leave."""
        places = [self.spec, self.build, self.build / "releases", self.root / "home" / "store" / "staging"]
        names = [path.relative_to(self.root) for place in places if place.is_dir() for path in place.iterdir()]
        return sorted(
            str(name) for name in names if name.suffix == ".tmp" or "staging" in (name.parent.name, name.name[1:8])
        )


@dataclass
class Stage:
    """``before``: where the disturbed build starts; ``after``: what an undisturbed one makes of it, made elsewhere."""

    before: Site
    after: Site
    arguments: tuple[str, ...] = ()
    """Of the build that is disturbed."""
    broken: bool = False
    """What is current before it is damaged already."""


@pytest.fixture(scope="session")
def first_build(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Nothing was ever built."""
    root = tmp_path_factory.mktemp("first")
    after = Site(root / "after").write()
    after.good()
    return Stage(Site(root / "before").write(), after)


@pytest.fixture(scope="session")
def second_build(first_build: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A release is there; one model changed since, and the old release is to be pruned."""
    root = tmp_path_factory.mktemp("second")
    before = first_build.after.copy(root / "before").write("second")
    after = Site(root / "after").write()  # another folder and another store, from the beginning
    after.good()
    after.write("second").good()
    return Stage(before, after)


def manifest_of(store: Path, record: Path) -> str:
    """The text of the manifest that a record of the store names."""
    digest = json.loads(record.read_bytes())["artifact"]
    return (store / "artifacts" / digest[:2] / f"{digest}.json").read_text()


@pytest.fixture(scope="session")
def repair_build(first_build: Stage, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A release and a store that lost a file, and a record cut short; one model is built by force besides."""
    root = tmp_path_factory.mktemp("repair")
    before = first_build.after.copy(root / "before")
    cases = before.build / "current" / "golden" / "net" / "generated" / "cases.json"
    store = before.root / "home" / "store"
    [blob] = [blob for blob in (store / "blobs").glob("*/*") if blob.read_bytes() == cases.read_bytes()]
    [record] = [path for path in (store / "keys").glob("*/*.json") if blob.name in manifest_of(store, path)]
    blob.unlink()
    record.write_bytes(record.read_bytes()[:20])
    cases.unlink()
    return Stage(before, first_build.after, ("--force-model", "label"), broken=True)


@pytest.fixture(scope="session")
def stages(first_build: Stage, second_build: Stage, repair_build: Stage) -> dict[str, Stage]:
    """By the names that the tests and the page use."""
    return {"first": first_build, "second": second_build, "repair": repair_build}
