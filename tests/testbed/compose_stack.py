"""``docker compose``, found or fetched, and stacks of compose.yaml that a test starts and takes away."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
COMPOSE_FILE: Final = ROOT / "compose.yaml"

# Compose v2 as Debian 13 (trixie) has it, one static program.
_PACKAGE: Final = "pool/main/d/docker-compose/docker-compose_2.26.1-4_amd64.deb"
_SHA256: Final = "47681197cb2b1ab88206b42a1a92fc75f50d9530a6322d03494a473eed0408ea"
_PROGRAM: Final = "usr/libexec/docker/cli-plugins/docker-compose"
_MIRROR: Final = "http://deb.debian.org/debian/"


def compose_program() -> list[str]:
    """The words that start Compose v2: this machine's own, else Debian's, fetched once.

    Skips, with the reason, where there is none to be had.
    """
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) is None:
            continue
        said = subprocess.run([*words, "version", "--short"], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.strip().lstrip("v").startswith("2."):
            return words
    if platform.machine() != "x86_64" or shutil.which("dpkg-deb") is None:
        pytest.skip("there is no Docker Compose v2 here, and the one to fetch is a Debian package for x86_64")
    return [str(_fetched())]


def _fetched() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritonforge-tests" / "compose-2.26.1"
    program = cache / "docker-compose"
    if program.exists():
        return program
    package = _downloaded()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        file = Path(name) / "package.deb"
        file.write_bytes(package)
        subprocess.run(["dpkg-deb", "-x", str(file), name], check=True)
        (Path(name) / _PROGRAM).replace(program)
    return program


def _downloaded() -> bytes:
    problems = []
    for mirror in _mirrors():
        try:
            with urllib.request.urlopen(mirror + _PACKAGE, timeout=60) as stream:
                package: bytes = stream.read(64 << 20)
        except OSError as error:
            problems.append(f"{mirror}: {error}")
            continue
        if hashlib.sha256(package).hexdigest() == _SHA256:
            return package
        problems.append(f"{mirror}: the package has another sha256")
    pytest.skip(f"Docker Compose v2 is not here and cannot be fetched: {'; '.join(problems)}")


def _mirrors() -> list[str]:
    """Those of Debian that apt is told to use, and the one for all."""
    found = []
    if shutil.which("apt-get") is not None:
        words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
        found = subprocess.run(words, capture_output=True, text=True).stdout.split()
    mirrors = [url for url in found if url.startswith("http") and url.rstrip("/").endswith("/debian")]
    return list(dict.fromkeys([*mirrors, _MIRROR]))


@dataclass(slots=True)
class Stack:
    """One project of compose.yaml, with its environment."""

    program: Sequence[str]
    project: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """``docker compose WORDS`` for this project; ``more`` is environment for this time."""
        argv = [*self.program, "-p", self.project, "-f", str(COMPOSE_FILE), *words]
        environment = {**os.environ, **self.environment, **more}
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=240)
        if check and done.returncode:
            logs = subprocess.run([*argv[:5], "logs", "--tail", "40"], capture_output=True, text=True, env=environment)
            raise AssertionError(f"{' '.join(words)}: {done.stderr[-3000:]}\n{logs.stdout[-6000:]}")
        return done

    def port(self, service: str, inside: int) -> int:
        """Where a port of a service is published on this machine."""
        return int(self.run("port", service, str(inside)).stdout.strip().rpartition(":")[2])

    def left(self, client: Any) -> list[str]:
        """What of the project the engine still has."""
        label = {"label": f"com.docker.compose.project={self.project}"}
        containers = [item.name for item in client.containers.list(all=True, filters=label)]
        volumes = [item.name for item in client.volumes.list(filters=label)]
        return [*containers, *volumes, *(item.name for item in client.networks.list(filters=label))]


if __name__ == "__main__":  # for engines in a network with no way out: fetch it before
    print(" ".join(compose_program()))
