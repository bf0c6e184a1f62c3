"""Runs the real program in a folder with a spec, and says what is visible there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("tritonforge")
HEAD = "apiVersion: tritonforge/v1\nname: tiny\n"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there is a defect."""
        assert self.out.count("\n") == 1, f"not one line: {self.out!r}\n{self.err}"
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Workshop:
    """A folder with a spec, and a TRITONFORGE_HOME of its own."""

    folder: Path
    home: Path

    @staticmethod
    def make(root: Path, runtimes: Path | None = None) -> Workshop:
        """An empty one; ``runtimes`` is where the embedded Triton is installed, shared by a link."""
        made = Workshop(root / "spec", root / "home")
        made.folder.mkdir(parents=True)
        made.home.mkdir()
        if runtimes is not None:
            (made.home / "runtimes").symlink_to(runtimes)
        return made

    def copy(self, root: Path) -> Workshop:
        """The same state elsewhere, for a test that breaks things."""
        shutil.copytree(self.folder.parent, root, symlinks=True)
        return Workshop(root / "spec", root / "home")

    def write(self, text: str, name: str = "forge.yaml") -> Path:
        """Write a spec below its two-line head (an overlay has none)."""
        path = self.folder / name
        path.write_text((HEAD if name == "forge.yaml" else "") + text, encoding="utf-8")
        return path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TRITONFORGE_HOME": str(self.home)}

    def run(self, *words: str | Path, stdin: bytes = b"", timeout: float = 120, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [str(PROGRAM), *map(str, words)],
            cwd=cwd or self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=timeout,
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *words: str | Path, code: int = 0, **more: Any) -> dict[str, Any]:
        """The object of a ``--json`` command that ends with ``code``."""
        done = self.run(*words, "--json", **more)
        assert done.code == code, f"{words} ended with {done.code}\n{done.out}\n{done.err}"
        return done.json

    def build(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        """The first platform's outcome of a build."""
        return self.json("build", *words, code=code)["platforms"][0]

    def current(self, platform: str = "local") -> str | None:
        link = self.folder / "build" / platform / "current"
        return link.readlink().name if link.is_symlink() else None

    def releases(self, platform: str = "local") -> set[str]:
        folder = self.folder / "build" / platform / "releases"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def leftovers(self) -> list[Path]:
        """Whatever looks half-written."""
        found = [
            path
            for root in (self.folder, self.home / "store")
            for path in root.rglob("*")
            if path.name.endswith(".tmp") or path.name.startswith(".staging")
        ]
        return found + list((self.home / "store" / "staging").glob("*"))

    def published(self, platform: str = "local") -> dict[str, dict[str, Any]]:
        """The entries of the current release by folder."""
        document = json.loads((self.folder / "build" / platform / "current" / "release.json").read_bytes())
        return {entry["folder"]: entry for entry in document["models"]}


@dataclass
class Serving:
    """A ``tritonforge serve`` in the background."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    state: Path

    @staticmethod
    def start(workshop: Workshop, *words: str, platform: str = "local", timeout: float = 90) -> Serving:
        """Start it on free ports and wait until it says where it is."""
        state = workshop.folder / "build" / platform / "serving.json"
        ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
        with (workshop.folder.parent / "serve.err").open("wb") as stream:
            process = subprocess.Popen(
                [str(PROGRAM), "serve", "--platform", platform, *ports, *words],
                cwd=workshop.folder,
                env=workshop.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        deadline = time.monotonic() + timeout
        while not _is_of(state, process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError((workshop.folder.parent / "serve.err").read_text())
            time.sleep(0.05)
        said = json.loads(state.read_bytes())
        return Serving(process, said["http"], said["grpc"], state)

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a user would; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


def _is_of(state: Path, pid: int) -> bool:
    """Whether ``serving.json`` is there, and of this very process."""
    return state.exists() and json.loads(state.read_bytes())["pid"] == pid


def errors_said(text: str) -> int:
    """How many errors a user reads."""
    return sum(line.startswith("error: ") for line in text.splitlines())
