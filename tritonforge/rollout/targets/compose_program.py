"""``docker compose`` for one project of a compose file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.errors import CheckFailed, EnvironmentLacks

NEEDED: Final = ("blue", "green", "haproxy", "keeper")
"""Services that a rollout works with."""
_LONGEST: Final = 1800.0
"""Seconds for one call: images may have to be pulled."""


@dataclass(frozen=True, slots=True)
class Project:
    """``environment`` fills in the file's variables; ``profiles`` are those that the target asks for."""

    program: Sequence[str]
    name: str
    file: Path
    environment: Mapping[str, str]
    profiles: Sequence[str] = ()

    def run(
        self,
        *words: str,
        services: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """``docker compose WORDS``; what it printed. ``services`` is laid over the file's own.

        Raises:
            CheckFailed: it does not do it; in its own words.
        """
        with tempfile.TemporaryDirectory(prefix="tritonforge-compose-") as folder:
            files = ["-f", str(self.file)]
            if services:
                over = Path(folder) / "services.yaml"
                over.write_text(yaml.safe_dump({"services": {name: dict(said) for name, said in services.items()}}))
                files += ["-f", str(over)]
            profiles = [word for profile in ("rollout", *self.profiles) for word in ("--profile", profile)]
            argv = [*self.program, "-p", self.name, "--project-directory", str(self.file.parent), *files, *profiles]
            try:
                done = subprocess.run(
                    [*argv, *words],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    env={**os.environ, **self.environment, **(environment or {})},
                    timeout=_LONGEST,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise EnvironmentLacks(f"docker compose {words[0]} took longer than {_LONGEST:g} s") from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise CheckFailed(f"docker compose {words[0]} failed", found="; ".join(lines[-3:]) or None)
        return done.stdout

    def services(self) -> list[str]:
        """The file's services, as far as its profiles are asked for.

        Raises:
            CheckFailed: the file is none, or lacks a service that a rollout needs.
        """
        found = self.run("config", "--services").split()
        absent = [name for name in NEEDED if name not in found]
        if absent:
            raise CheckFailed(
                f"the compose file lacks {', '.join(absent)}",
                expected="services like those of tritonforge's own compose.yaml: " + ", ".join(NEEDED),
                found=f"{self.file}: {', '.join(found)}",
            )
        return found


def compose_program() -> list[str]:
    """The words that start Compose v2.

    Raises:
        EnvironmentLacks: it is not there, or is the old one.
    """
    said = "there is no program `docker` or `docker-compose`"
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run([*words, "version", "--format", "json"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            version = str(json.loads(done.stdout).get("version", ""))
            if re.match(r"v?[2-9]", version):
                return words
            said = f"`{' '.join(words)}` is {version}"
        else:
            said = f"`{' '.join(words)}`: " + (done.stderr.strip().splitlines() or ["it failed"])[-1]
    raise EnvironmentLacks(
        "Docker Compose v2 is not installed",
        found=said,
        hint="install its plugin: docker-compose-plugin of Docker's own packages, docker-compose of Debian 13, "
        "docker-compose-v2 of Ubuntu; or use a target of kind docker, which needs none",
    )
