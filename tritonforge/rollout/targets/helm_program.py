"""The program ``helm``: found, its version known, run with one cluster and namespace, its errors as tritonforge's.

Helm 4 applies on the server's side, where another manager's field is a conflict (helm.sh/docs, "Helm 4 overview");
Helm 3 merges on the client's side. ``--rollback-on-failure`` (4) and ``--atomic`` (3) are not used: both wait until all
pods are ready, and what a newcomer's failure means is the rollout's to say.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, SpecError
from tritonforge.rollout.targets.kubernetes_api import Access

OLDEST: Final = (3, 14)
_INSTALL: Final = "https://helm.sh/docs/intro/install says how to get it; then it must be on PATH"


class HelmFailed(CheckFailed):
    """Helm ended with an error; ``text`` is what it said."""

    def __init__(self, what: str, text: str) -> None:
        lines = [line for line in text.strip().splitlines() if line and not line.startswith("WARNING:")]
        super().__init__(f"helm {what} failed", details=[line[:600] for line in lines[-6:]])
        self.text = text


@dataclass(frozen=True, slots=True)
class HelmProgram:
    """``timeout`` is the longest that one call may take, in seconds."""

    path: str
    version: tuple[int, int]
    access: Access
    timeout: int

    def run(self, words: Sequence[str], *, what: str | None = None) -> str:
        """What ``helm WORDS`` prints. An interruption waits until it has ended: half a change is worse than a moment.

        Raises:
            EnvironmentLacks: the cluster is not reached, refuses, or another helm is at work.
            SpecError: the chart refuses the values.
            HelmFailed: anything else.
        """
        name = what or words[0]
        process = subprocess.Popen(
            [self.path, *words, *self._where()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = self._ended(process, name)
        except KeyboardInterrupt:
            self._ended(process, name)
            raise
        if process.returncode:
            raise failure(name, err or out)
        return out

    def json(self, words: Sequence[str]) -> Any:
        """What ``helm WORDS --output json`` prints, as data."""
        return json.loads(self.run([*words, "--output", "json"]) or "null")

    @property
    def applying(self) -> list[str]:
        """Options of ``upgrade``: what somebody changed by hand becomes again what was released."""
        return ["--server-side=true", "--force-conflicts"] if self.version >= (4, 0) else []

    def others(self, release: str) -> list[int]:
        """Processes of helm on this machine that change the release, such as those of a command that was killed."""
        import psutil

        verbs = {"install", "upgrade", "rollback", "uninstall"}
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if len(words) > 2 and Path(words[0]).name == "helm" and words[1] in verbs and release in words:
                namespace = words[words.index("--namespace") + 1] if "--namespace" in words[:-1] else None
                if namespace in (None, self.access.namespace):
                    found.append(process.pid)
        return found

    def _where(self) -> list[str]:
        words = ["--namespace", self.access.namespace]
        if self.access.context is not None:
            words += ["--kube-context", self.access.context]
        if self.access.kubeconfig is not None:
            words += ["--kubeconfig", str(self.access.kubeconfig)]
        return words

    def _ended(self, process: subprocess.Popen[str], name: str) -> tuple[str, str]:
        try:
            return process.communicate(timeout=self.timeout + 30)
        except subprocess.TimeoutExpired:
            process.terminate()
            time.sleep(1.0)
            process.kill()
            process.communicate()
            raise EnvironmentLacks(
                f"helm {name} took longer than {self.timeout + 30} s",
                hint="the target's `timeout_s` is the longest that it may take",
            ) from None


def find_helm(access: Access, timeout: int) -> HelmProgram:
    """Helm of this machine.

    Raises:
        EnvironmentLacks: it is not installed, or too old.
    """
    path = shutil.which("helm")
    if path is None:
        raise EnvironmentLacks("targets of kind 'helm' need the program helm, which is not installed", hint=_INSTALL)
    try:
        said = subprocess.run([path, "version", "--short"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentLacks(f"{path} does not run", found=str(error), hint=_INSTALL) from None
    version = read_version(said.stdout)
    if version is None or version < OLDEST:
        raise EnvironmentLacks(
            "this helm is too old",
            expected="3.14 or newer",
            found=f"{path}: {(said.stdout or said.stderr).strip()[:100]}",
            hint=_INSTALL,
        )
    return HelmProgram(path, version, access, timeout)


def read_version(text: str) -> tuple[int, int] | None:
    """Major and minor of ``v4.1.4+g05fa379``."""
    match = re.search(r"v?(\d+)\.(\d+)\.\d+", text)
    return None if match is None else (int(match[1]), int(match[2]))


def failure(what: str, text: str) -> ForgeError:
    """Helm's error as one of tritonforge's."""
    said = text.strip()
    last = said.splitlines()[-1][-400:] if said else "nothing"
    if re.search(r"cluster unreachable|connection refused|no such host|i/o timeout|TLS handshake", said):
        return EnvironmentLacks(
            "the cluster is not reached", found=last, hint="`kubectl get nodes` shows whether it is up"
        )
    if "another operation" in said and "in progress" in said:
        return EnvironmentLacks(
            "another helm is at work on this release", found=last, hint="wait for it to end, then run this again"
        )
    if re.search(r'namespaces? "[^"]*" not found', said):
        return EnvironmentLacks(
            "the target's namespace is not there", found=last, hint="make it: `kubectl create namespace NAME`"
        )
    if "is forbidden" in said:
        return EnvironmentLacks(
            f"the cluster does not allow helm {what}",
            found=last,
            hint="`kubectl auth can-i --list` shows what the credentials allow",
        )
    if "don't meet the specifications of the schema" in said or "execution error at" in said:
        lines = [line.strip() for line in said.splitlines()]
        details = [line for line in lines if line.startswith("- ")] or [lines[-1].rpartition("): ")[2][:600]]
        return SpecError(
            "the chart refuses the values",
            details=details,
            hint="see the target's `values` and `set`; the chart's README.md lists what there is",
        )
    return HelmFailed(what, said)
