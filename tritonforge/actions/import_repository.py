"""``import``: a Triton repository that somebody made becomes a spec, which builds back to just that repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.actions.import_models import ImportedModel, examined, triton_for
from tritonforge.actions.import_staging import LOCK, MODELS, SPEC, alone, check_target, publish
from tritonforge.actions.workspace import open_workspace
from tritonforge.artifact.digest import FileDigests
from tritonforge.artifact.linking import share_file
from tritonforge.artifact.store import default_home
from tritonforge.build.planning import plan_graph
from tritonforge.durable import disk_errors, write_atomic
from tritonforge.repository.given import steps_of
from tritonforge.sources.triton_repository import Left, read_repository
from tritonforge.spec.lock import Lock, write_lock
from tritonforge.steps.export.collect import collected

EDITED: Final = 1 << 20
"""Smaller files are what people edit (configs, code, vocabularies): a copy, so that no edit reaches the original."""

HEAD: Final = (
    "# Made by `tritonforge import` from a Triton repository, and now the place where it is changed: `config:` of a\n"
    "# model is laid over its config.pbtxt, and a new version is a new folder with the next number.\n"
)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``triton`` is the container release that serves it, found from the configs when None.

    ``link`` lets files share their inodes with the repository where blocks cannot be shared.
    """

    name: str | None = None
    triton: str | None = None
    link: bool = True
    follow_links: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What was taken and what was not; ``written`` is false for a dry run. ``shared`` and ``copied`` are in bytes."""

    folder: Path
    text: str
    models: tuple[ImportedModel, ...]
    left: tuple[Left, ...]
    warnings: tuple[str, ...]
    written: bool
    shared: int = 0
    copied: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "spec": str(self.folder / SPEC),
            "written": self.written,
            "models": [model.to_json() for model in self.models],
            "left": [{"path": item.path, "why": item.why} for item in self.left],
            "warnings": list(self.warnings),
            "shared_bytes": self.shared,
            "copied_bytes": self.copied,
        }


def import_repository(
    repository: Path,
    into: Path,
    options: ImportOptions = ImportOptions(),
    progress: Callable[[str], None] = lambda text: None,
) -> ImportOutcome:
    """Write a spec, its lock and the files of a repository into ``into``, whole or not at all.

    Raises:
        UsageError: it is no repository, or there is a spec already.
        SpecError: a model cannot be taken; the others that cannot are in the details.
        EnvironmentLacks: something cannot be read or written.
    """
    found = read_repository(repository, follow_links=options.follow_links)
    check_target(repository, into)
    warnings: list[str] = []
    models = examined(list(found.models.values()), warnings)
    triton = triton_for(models, options.triton, warnings)
    text = _spec_text(_plain_name(options.name or repository.resolve().name), triton, models)
    outcome = ImportOutcome(into, text, tuple(models), found.left, tuple(warnings), not options.dry_run)
    if options.dry_run:
        return outcome
    with disk_errors("cannot write what was imported", into), alone(into) as staging:
        sizes = {True: 0, False: 0}
        for number, model in enumerate(models, 1):
            progress(f"{model.name} ({number} of {len(models)})")
            for path, source in model.found.files.items():
                size = source.stat().st_size
                target = staging / MODELS / model.name / path
                shared = share_file(source, target, link=options.link and size >= EDITED)
                sizes[shared] += size
            for version in model.found.parts.versions:
                (staging / MODELS / model.name / str(version)).mkdir(parents=True, exist_ok=True)
        write_atomic(staging / SPEC, text.encode())
        progress("reading the files for forge.lock")
        write_lock(staging / LOCK, _lock(staging / SPEC, models))
        publish(staging, into)
        home = default_home()
        FileDigests(home / "digests.sqlite").moved(staging.resolve() / MODELS, into.resolve() / MODELS)
    return ImportOutcome(
        into, text, tuple(models), found.left, tuple(warnings), True, shared=sizes[True], copied=sizes[False]
    )


def _spec_text(name: str, triton: str | None, models: list[ImportedModel]) -> str:
    entries: dict[str, dict[str, str | int]] = {}
    for model in models:
        entries[model.name] = {"source": f"{MODELS}/{model.name}/", "format": "triton"}
        empty = [number for number in model.versions if not model.found.parts.versions.get(number)]
        if empty == list(model.versions):
            # Version control keeps no empty folders: with it, the version is there all the same.
            entries[model.name]["version"] = max(model.versions)
    data = {
        "apiVersion": "tritonforge/v1",
        "name": name,
        "platforms": {"local": {} if triton is None else {"triton": triton}},
        "models": entries,
    }
    return HEAD + str(yaml.safe_dump(data, sort_keys=False, width=200, default_flow_style=False))


def _plain_name(text: str) -> str:
    made = re.sub(r"[^A-Za-z0-9_.-]", "-", text, flags=re.ASCII).strip("-._")[:200]
    return made or "repository"


def _lock(spec: Path, models: list[ImportedModel]) -> Lock:
    """The lock of what was staged: every number stands for the artifact that a build will make."""
    workspace = open_workspace(spec)
    lock = Lock()
    platform = workspace.platform()
    graph = plan_graph(workspace.loaded, platform, workspace.resolver(lock))
    for error in graph.errors.values():
        raise error
    for model in models:
        for line in graph.models[model.name].served:
            sources = graph.nodes[line.artifact].sources
            artifact = collected({path: (file.sha256, file.size) for path, file in sources.items()})
            lock.number_for(platform.name, model.name, artifact.digest, wanted=int(line.label))
        steps = steps_of(model.message)
        if steps:
            lock.pins.setdefault(platform.name, {})[model.name] = dict(steps)
    return lock
