"""One release of Helm: its revisions, and one way to change it that also heals what a killed helm left."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks, ForgeError
from tritonforge.rollout.lock import holder_here
from tritonforge.rollout.processes import started_at
from tritonforge.rollout.targets.helm_program import HelmFailed, HelmProgram
from tritonforge.rollout.targets.kubernetes_api import Cluster

HISTORY: Final = 20
"""Revisions that Helm keeps."""
BY: Final = "tritonforge.dev/by"
CHART: Final = "tritonforge.dev/chart"


@dataclass(frozen=True, slots=True)
class Revision:
    """One of Helm's revisions; ``status`` is ``deployed``, ``superseded``, ``failed``, ``pending-upgrade``, …"""

    number: int
    status: str
    description: str
    updated: str

    @property
    def pending(self) -> bool:
        """Whether a helm works on it, or was killed while it did."""
        return self.status.startswith("pending-")


@dataclass(slots=True)
class HelmRelease:
    """``chart`` is a folder."""

    name: str
    program: HelmProgram
    cluster: Cluster
    chart: Path
    _values: dict[str, Any] | None = field(default=None, init=False)
    _healthy: list[Revision] | None = field(default=None, init=False)
    """What the last look found in order, until something is changed."""

    def revisions(self) -> list[Revision]:
        """All that Helm keeps, oldest first; none where it was never installed."""
        try:
            said = self.program.json(["history", self.name])
        except HelmFailed as failed:
            if "not found" in failed.text:
                return []
            raise
        return [
            Revision(int(item["revision"]), item["status"], item.get("description") or "", item.get("updated") or "")
            for item in said
        ]

    def values(self) -> dict[str, Any] | None:
        """The values that the deployed revision was given; None where none is deployed."""
        if self._values is None:
            deployed = self._deployed(self._healthy or self.revisions())
            if deployed is not None:
                words = ["get", "values", self.name, "--revision", str(deployed.number)]
                self._values = self.program.json(words) or {}
        return self._values

    def heal(self, *, ours: bool) -> str | None:
        """Bring a release that a killed or failed helm left back to what was deployed last; what was done, in words.

        ``ours``: this process holds the target's lock, so no other tritonforge is at work on it.

        Raises:
            EnvironmentLacks: a helm may still be at work on it.
        """
        found = self.revisions()
        if found and found[-1].pending:
            self._wait_for_others()
            found = self.revisions()
        if not found or found[-1].status in ("deployed", "superseded", "uninstalled"):
            self._healthy = found
            return None
        last = found[-1]
        if last.pending:
            self._require_dead(last, ours)
        self._values = None
        deployed = self._deployed(found)
        if deployed is None:
            self.program.run(["uninstall", self.name])
            return f"Helm's revision {last.number} was left {last.status} and nothing was deployed: it was uninstalled"
        text = f"Helm's revision {last.number} was left {last.status}"
        try:
            self.program.run(["rollback", self.name, str(deployed.number), "--history-max", str(HISTORY)])
        except HelmFailed:
            # Helm cannot roll back to what is still there and was to go: it looks for it in the revision that failed.
            # The attempt is a failed revision, over which an upgrade is possible; over a pending one it is not.
            values = self.program.json(["get", "values", self.name, "--revision", str(deployed.number)]) or {}
            last = self.revisions()[-1]
            self._upgrade(
                values,
                f"tritonforge: what revision {deployed.number} had, after a helm that was killed",
                last.number + 1,
            )
            self._sweep()
            return f"{text}: what revision {deployed.number} had was deployed again"
        return f"{text}: rolled back to revision {deployed.number}"

    def earlier(self) -> Iterator[dict[str, Any]]:
        """The values of all revisions that Helm keeps, newest first."""
        for revision in reversed(self.revisions()):
            yield self.program.json(["get", "values", self.name, "--revision", str(revision.number)]) or {}

    def apply(self, values: Mapping[str, Any], description: str, *, force: bool = False) -> bool:
        """Have the release deployed with these values; False where it is so already, unless ``force``: somebody may
        have changed by hand what it made. The pods are not waited for.

        Raises:
            ForgeError: helm refuses; what was deployed before is deployed again.
        """
        found, self._healthy = self._healthy or self.revisions(), None
        same = bool(found) and found[-1].status == "deployed" and not force and self.values() == values
        if same and self._labels(found[-1].number).get(CHART) == chart_digest(self.chart):
            return False
        self._values = None
        try:
            self._upgrade(values, description, found[-1].number + 1 if found else 1)
        except ForgeError:
            self.heal(ours=True)
            raise
        self._values = json.loads(json.dumps(values))
        return True

    def _sweep(self) -> None:
        """Delete what runs under the release's label and is not its own any more: Helm forgets it in such a case."""
        import yaml

        manifest = self.program.run(["get", "manifest", self.name], what="get manifest")
        own = {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(manifest) if item}
        for kind, path in (("Deployment", "deployments"), ("StatefulSet", "statefulsets")):
            labels = {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/managed-by": "Helm"}
            for item in self.cluster.items(self.cluster.path(path, group="apps/v1"), labels):
                if (kind, item["metadata"]["name"]) not in own:
                    self.cluster.delete(self.cluster.path(path, item["metadata"]["name"], "apps/v1"))

    def _upgrade(self, values: Mapping[str, Any], description: str, number: int) -> None:
        """``number`` is the revision that it will be."""
        with tempfile.TemporaryDirectory(prefix="tritonforge-helm-") as folder:
            file = Path(folder) / "values.json"
            file.write_text(json.dumps(values))
            labels = {BY: this_process(number), CHART: chart_digest(self.chart)}
            words = [
                *("upgrade", self.name, str(self.chart), "--install", "--reset-values"),
                *("--values", str(file), "--description", description, "--history-max", str(HISTORY)),
                *("--labels", ",".join(f"{key}={value}" for key, value in labels.items())),
                *("--timeout", f"{self.program.timeout}s"),
                *self.program.applying,
            ]
            self.program.run(words)

    def uninstall(self) -> None:
        """Take everything away that the chart does not say to keep."""
        self._values = None
        if self.revisions():
            self.program.run(["uninstall", self.name, "--timeout", f"{self.program.timeout}s"])

    def _deployed(self, revisions: list[Revision]) -> Revision | None:
        """The newest that was deployed, also where a later attempt has set it aside already."""
        for status in ("deployed", "superseded"):
            for revision in reversed(revisions):
                if revision.status == status:
                    return revision
        return None

    def _labels(self, number: int) -> Mapping[str, str]:
        """Of the Secret that Helm keeps a revision in; none where it keeps them elsewhere or they may not be read."""
        path = self.cluster.path("secrets", f"sh.helm.release.v1.{self.name}.v{number}")
        try:
            found = self.cluster.get(path)
        except EnvironmentLacks:
            return {}
        labels: Mapping[str, str] = ((found or {}).get("metadata") or {}).get("labels") or {}
        return labels

    def _wait_for_others(self) -> None:
        """A helm whose tritonforge was killed goes on by itself; two must never work on one release."""
        ends = time.monotonic() + self.program.timeout
        while self.program.others(self.name):
            if time.monotonic() > ends:
                raise EnvironmentLacks(
                    f"another helm is at work on {self.name}", found=f"process {self.program.others(self.name)[0]}"
                )
            time.sleep(0.2)

    def _require_dead(self, last: Revision, ours: bool) -> None:
        by = self._labels(last.number).get(BY)
        if by is not None and not by.endswith(f".{last.number}"):
            by = None  # labels are handed on: this one is an earlier revision's
        if is_dead(by) or (ours and by is not None) or _age(last.updated) > self.program.timeout:
            return
        raise EnvironmentLacks(
            f"another helm seems to be at work on {self.name}",
            found=f"revision {last.number} is {last.status} since {last.updated}",
            hint=f"wait for it to end; left alone it is taken for dead {self.program.timeout} s after it began",
        )


def chart_digest(chart: Path) -> str:
    """Changes with any file of the chart that Helm reads."""
    digest = hashlib.sha256()
    for file in sorted(chart.rglob("*")):
        if file.is_file() and file.suffix != ".md" and "__pycache__" not in file.parts:
            digest.update(str(file.relative_to(chart)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def this_process(number: int) -> str:
    """Who made which revision, as a label may say it: machine and boot, process, when that was started, revision."""
    holder = holder_here("helm")
    return f"{_machine(str(holder['machine']))}.{holder['pid']}.{holder['started']}.{number}"


def is_dead(by: str | None) -> bool:
    """Whether a process of this machine made it that is gone, or this very process, which has no helm running."""
    if by is None or by.count(".") != 3:
        return False
    machine, pid, started, number = by.split(".")
    host, _, boot = machine.partition("-")
    here, _, now = _machine(str(holder_here("helm")["machine"])).partition("-")
    if host != here:
        return False
    return boot != now or by == this_process(int(number)) or started_at(int(pid)) != started


def _machine(said: str) -> str:
    machine, _, boot = said.rpartition("/")
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:12] for part in (machine, boot))


def _age(updated: str) -> float:
    """Seconds since a time of Helm's; 0 where it cannot be read."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(updated)).total_seconds()
    except (ValueError, TypeError):
        return 0.0
