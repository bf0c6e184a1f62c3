"""``doctor``: what this machine, and a target, have and lack; nothing is changed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tritonforge.actions.live import has_gpu
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.store import default_home
from tritonforge.errors import EnvironmentLacks, ExitCode, ForgeError, UsageError, did_you_mean
from tritonforge.spec.targets.helm import HelmTarget
from tritonforge.spec.targets.jetson import JetsonTarget

State = Literal["ok", "warn", "lacks"]
GB: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``hint`` is what to do about it, or what to know."""

    name: str
    state: State
    found: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings; ``facts`` are a target's own, as data."""

    findings: tuple[Finding, ...]
    target: str | None = None
    kind: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """3 when something that is needed lacks."""
        return ExitCode.ENVIRONMENT if any(item.state == "lacks" for item in self.findings) else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.exit_code == ExitCode.OK,
            "target": self.target,
            "kind": self.kind,
            "findings": [asdict(item) for item in self.findings],
            **self.facts,
        }


def diagnose(workspace: Workspace | None = None, target: str | None = None) -> Diagnosis:
    """Look at this machine; with ``target`` at what that needs here, and at what is there.

    Raises:
        UsageError: the spec has no such target.
    """
    if target is None:
        return Diagnosis(machine())
    if workspace is None or target not in workspace.loaded.spec.targets:
        known = [] if workspace is None else list(workspace.loaded.spec.targets)
        raise UsageError(f"the spec has no target '{target}'", hint=did_you_mean(target, known))
    spec = workspace.loaded.spec.targets[target]
    findings = list(machine(_NEEDS[spec.kind], others=False))
    facts: dict[str, Any] = {}
    if isinstance(spec, JetsonTarget):
        from tritonforge.actions.doctor_board import examine

        looked, facts = examine(workspace, spec)
        findings += looked
    elif isinstance(spec, HelmTarget):
        findings.append(_cluster(workspace, spec))
    return Diagnosis(tuple(findings), target, spec.kind, facts)


_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "embedded": ("embedded Triton", "haproxy"),
    "docker": ("docker package", "Docker engine"),
    "compose": ("docker package", "Docker engine", "docker compose"),
    "jetson": ("docker package", "ssh"),
    "helm": ("helm", "kubernetes package"),
    "server": (),
}
_BASIC: Final = ("Python", "home")


def machine(needed: Sequence[str] = (), *, others: bool = True) -> tuple[Finding, ...]:
    """What this machine has. What is not ``needed`` and lacks is a warning, or left out without ``others``."""
    looks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "home": _home,
        "embedded Triton": _embedded,
        "docker package": lambda: _package("docker", "docker", "targets of containers, and --container"),
        "Docker engine": _engine,
        "docker compose": lambda: _program(
            "docker compose", ["docker", "compose", "version", "--short"], "targets of kind compose", "2.0"
        ),
        "haproxy": lambda: _program("haproxy", ["haproxy", "-v"], "two slots on this machine", "2.4"),
        "ssh": lambda: _program("ssh", ["ssh", "-V"], "targets of kind jetson, and engines elsewhere", "8.0"),
        "helm": lambda: _program("helm", ["helm", "version", "--short"], "targets of kind helm", "3.14"),
        "kubectl": lambda: _program(
            "kubectl", ["kubectl", "version", "--client"], "looking into a cluster by hand; tritonforge needs it not"
        ),
        "kubernetes package": lambda: _package("kubernetes", "kubernetes", "targets of kind helm"),
        "GPU": _gpu,
    }
    made: list[Finding] = []
    for name, look in looks.items():
        required = name in _BASIC or name in needed
        if not required and not others:
            continue
        finding = look()
        if finding.state == "lacks" and not required:
            finding = Finding(finding.name, "warn", finding.found, finding.hint)
        made.append(finding)
    return tuple(made)


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _home() -> Finding:
    home = default_home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("home", "lacks", f"{there} cannot be written", "let TRITONFORGE_HOME name another folder")
    free = shutil.disk_usage(there).free
    found = f"{home}, {free / GB:.1f} GB free"
    if free < GB // 2:
        return Finding("home", "lacks", found, "free some space: `tritonforge cache gc`, or set TRITONFORGE_HOME")
    if free < 5 * GB:
        return Finding("home", "warn", found, "little for models: `tritonforge cache gc` frees what is not in use")
    return Finding("home", "ok", found)


def _embedded() -> Finding:
    from tritonforge.triton.embedded.install import find
    from tritonforge.triton.embedded.machine import architecture

    runtime = find()
    if runtime is not None:
        return Finding(
            "embedded Triton", "ok", f"{runtime.triton_version} ({runtime.release}), Python {runtime.python}"
        )
    try:
        architecture()
    except EnvironmentLacks as error:
        return Finding("embedded Triton", "lacks", "; ".join(filter(None, (error.message, error.found))), error.hint)
    return Finding("embedded Triton", "warn", "not installed yet", "the first command that needs it fetches it")


def _engine() -> Finding:
    from tritonforge.triton.engine import connect

    try:
        with closing(connect()) as client:
            said = client.version()
    except ForgeError as error:
        return Finding("Docker engine", "lacks", "; ".join(filter(None, (error.message, error.found))), error.hint)
    return Finding("Docker engine", "ok", f"{said['Version']}, {said['Os']}/{said['Arch']}")


def _package(module: str, extra: str, purpose: str) -> Finding:
    name = f"{module} package"
    if importlib.util.find_spec(module) is None:
        return Finding(name, "lacks", "not installed", f"for {purpose}: pip install 'tritonforge[{extra}]'")
    return Finding(name, "ok", importlib.metadata.version(module))


def _program(name: str, argv: list[str], purpose: str, least: str | None = None) -> Finding:
    if shutil.which(argv[0]) is None:
        return Finding(name, "lacks", "not installed", f"needed for {purpose}")
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, "lacks", f"does not run: {type(error).__name__}", f"needed for {purpose}")
    version = re.search(r"\d+\.\d+(?:\.\d+)?", ran.stdout + ran.stderr)
    if ran.returncode != 0 or version is None:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        return Finding(
            name, "lacks", said[-1][:200] if said else f"ends with {ran.returncode}", f"needed for {purpose}"
        )
    if least is not None and _numbers(version[0]) < _numbers(least):
        return Finding(name, "lacks", version[0], f"{purpose} need {least} or newer")
    return Finding(name, "ok", version[0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _gpu() -> Finding:
    if not has_gpu():
        return Finding("GPU", "ok", "none: models run on the processor here")
    texts = [(path / "information").read_text() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*"))]
    models = [found[1] for text in texts if (found := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))]
    return Finding("GPU", "ok", ", ".join(models) or "an NVIDIA GPU")


def _cluster(workspace: Workspace, spec: HelmTarget) -> Finding:
    """Whether helm reaches the cluster, by the way that a deployment takes."""
    if shutil.which("helm") is None:
        return Finding("cluster", "warn", "not asked: there is no helm")
    argv = ["helm", "list", "--namespace", spec.namespace]
    argv += ["--kube-context", spec.context] if spec.context is not None else []
    argv += ["--kubeconfig", str(workspace.loaded.folder / spec.kubeconfig)] if spec.kubeconfig is not None else []
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Finding("cluster", "lacks", "no answer within 30 s", "is it up, and is the context right?")
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines()
        return Finding(
            "cluster", "lacks", said[-1][:300] if said else "helm failed", "check `context` and `kubeconfig`"
        )
    return Finding("cluster", "ok", f"namespace {spec.namespace} answers")
