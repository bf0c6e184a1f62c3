"""``report``: what was built and why, and what proves it, as one HTML file and the same as JSON."""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass
from pathlib import Path

from tritonforge.actions.show import view_release
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.store import KeyRecord, LocalStore
from tritonforge.build.planning import wanted_on
from tritonforge.durable import disk_errors, write_atomic
from tritonforge.errors import SpecError
from tritonforge.report import Known, Report, collect, to_html
from tritonforge.report.changes import previous_release
from tritonforge.repository.release import PlatformFolder, Release, read_release


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where a report was written; ``stable`` is the page that is always of the current release, if this one is."""

    report: Report
    html: Path
    json: Path
    stable: Path | None


def write_report(
    workspace: Workspace,
    *,
    platform_name: str | None = None,
    reference: str | None = None,
    html: Path | None = None,
    json: Path | None = None,
) -> ReportPaths:
    """Write the report of a release (the current one without a reference) beside the releases of its platform.

    ``html`` and ``json`` are other places for the two files.

    Raises:
        UsageError: there is no such platform or release.
        SpecError: the release is damaged.
        EnvironmentLacks: a file cannot be written; what stood there before is whole.
    """
    report = report_of(workspace, platform_name=platform_name, reference=reference)
    root = workspace.build_root / str(report.platform["name"])
    # What a hostile file made of half a character is written as its escape: valid in JSON, visible in HTML.
    page = to_html(report).encode("utf-8", "backslashreplace")
    text = json_module.dumps(report.to_json(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    data = text.encode("utf-8", "backslashreplace")
    paths = ReportPaths(
        report,
        html or root / "reports" / f"{report.release}.html",
        json or root / "reports" / f"{report.release}.json",
        root / "report.html" if report.current else None,
    )
    written = {paths.html: page, paths.json: data}
    if paths.stable is not None:
        written |= {paths.stable: page, paths.stable.with_suffix(".json"): data}
    for path, content in written.items():
        with disk_errors("cannot write the report", path):
            write_atomic(path, content)
    return paths


def report_of(workspace: Workspace, *, platform_name: str | None = None, reference: str | None = None) -> Report:
    """The report of a release, from its evidence and the store; nothing is measured or written.

    Raises:
        UsageError: there is no such platform or release.
        SpecError: the release is damaged.
    """
    view = view_release(workspace, platform_name, reference)
    spec = workspace.loaded.spec
    folder = workspace.releases(view.platform)
    history = folder.history()
    known = Known(
        history=history,
        current=view.current,
        previous=_previous(folder, previous_release(history, view.release.digest)),
        proofs=view.proofs,
        evidence=view.evidence,
        gates=view.gates,
        asked_gates={name: gate.model for name, gate in spec.gates.items() if wanted_on(gate.platforms, view.platform)},
        records=_records(workspace.store, view.release),
        description=spec.description,
        descriptions={name: member.description for name, member in spec.servables().items()},
    )
    return collect(view.release, known)


def _previous(folder: PlatformFolder, digest: str | None) -> Release | None:
    if digest is None:
        return None
    try:
        return read_release(folder.releases / digest)
    except SpecError:  # pruned, or from another version of tritonforge
        return None


def _records(store: LocalStore, release: Release) -> dict[str, KeyRecord]:
    keys = {step["key"] for entry in release.models() for step in entry["made_from"]}
    return {key: record for key in sorted(keys) if (record := store.lookup(key)) is not None}
