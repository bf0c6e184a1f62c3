"""``import``: a Triton repository that somebody made becomes a spec, which builds back to just that repository."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.actions.workspace import open_workspace
from tritonforge.artifact.linking import share_file
from tritonforge.build.planning import plan_graph
from tritonforge.durable import disk_errors, fsync_folder, write_atomic
from tritonforge.errors import ForgeError, Place, SpecError, UsageError
from tritonforge.repository.given import backend_of, read_given, served_versions, steps_of
from tritonforge.repository.pbtxt import new, parse
from tritonforge.repository.request import ENSEMBLE
from tritonforge.repository.schema import unknown_fields
from tritonforge.sources.model_folder import CONFIG, CONFIGS
from tritonforge.sources.triton_repository import FoundModel, Left, read_repository
from tritonforge.spec.lock import Lock, write_lock
from tritonforge.spec.models import PlatformSpec
from tritonforge.spec.platform import resolve_platform
from tritonforge.steps.export.collect import collected

SPEC: Final = "forge.yaml"
LOCK: Final = "forge.lock"
MODELS: Final = "models"
STAGING: Final = ".tritonforge-import"
WHOLE: Final = "whole"
"""A file in the staging folder: everything is there, and what is no longer there stands in its place already."""

EDITED: Final = 1 << 20
"""Smaller files are what people edit (configs, code, vocabularies): a copy, so that no edit reaches the original."""

HEAD: Final = (
    "# Made by `tritonforge import` from a Triton repository, and now the place where it is changed: `config:` of a\n"
    "# model is laid over its config.pbtxt, and a new version is a new folder with the next number.\n"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What is taken of one folder. ``served`` are the versions that its policy has Triton load; ``size`` in bytes.

    ``config`` is false where there is no ``config.pbtxt``; ``variants`` are the names of its further configs.
    """

    name: str
    backend: str
    versions: tuple[int, ...]
    served: tuple[int, ...]
    config: bool
    variants: tuple[str, ...]
    files: int
    size: int
    message: Any
    found: FoundModel

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "backend": self.backend,
            "versions": list(self.versions),
            "served": list(self.served),
            "config": self.config,
            "config_variants": list(self.variants),
            "files": self.files,
            "bytes": self.size,
        }


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
    _check_target(repository, into)
    warnings: list[str] = []
    models = _examined(list(found.models.values()), warnings)
    triton = _triton(models, options.triton, warnings)
    text = _spec_text(_plain_name(options.name or repository.resolve().name), triton, models)
    outcome = ImportOutcome(into, text, tuple(models), found.left, tuple(warnings), not options.dry_run)
    if options.dry_run:
        return outcome
    with disk_errors("cannot write what was imported", into), _alone(into) as staging:
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
        _publish(staging, into)
    return ImportOutcome(
        into, text, tuple(models), found.left, tuple(warnings), True, shared=sizes[True], copied=sizes[False]
    )


def _check_target(repository: Path, into: Path) -> None:
    if into.resolve().is_relative_to(repository.resolve()):
        raise UsageError(
            "the spec would stand in the repository itself, where Triton looks for models",
            found=str(into.resolve()),
            hint="name a folder elsewhere with --into",
        )
    for name in (SPEC, LOCK, MODELS):
        if (into / name).exists() and name not in _unfinished(into):
            raise UsageError(
                f"{into / name} exists already", hint="name another folder with --into, or move it out of the way"
            )


def _examined(found: list[FoundModel], warnings: list[str]) -> list[ImportedModel]:
    """What each model is.

    Raises:
        SpecError: the first that cannot be taken, with the others in the details.
    """
    models, errors = [], []
    for item in found:
        try:
            models.append(_examine(item, warnings))
        except ForgeError as error:
            errors.append(error)
    if errors:
        first = errors[0]
        more = [f"also: {error.place}: {error.message}" for error in errors[1:6]]
        first.details = (*first.details, *more, *([f"and {len(errors) - 6} more"] if len(errors) > 6 else []))
        raise first
    known = {model.name: model for model in models}
    for model in models:
        for step, version in steps_of(model.message):
            if step not in known:
                warnings.append(f"{model.name}: its step {step} is not in this repository")
            elif version > 0 and version not in known[step].served:
                warnings.append(f"{model.name}: its step {step}, version {version}, is not served")
    return models


def _examine(found: FoundModel, warnings: list[str]) -> ImportedModel:
    name, parts, place = found.name, found.parts, Place(found.folder)
    if not _NAME.fullmatch(name):
        raise SpecError(
            "a folder's name cannot be a model's here",
            place=place,
            expected="letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
            found=name,
            hint="rename the folder, and the `name` in its config.pbtxt with it",
        )
    message = new()
    if parts.config:
        file = found.files[CONFIG]
        message = parse(read_given(file.read_bytes(), file), found.folder / CONFIG)
    variants = []
    for path in parts.beside:
        if path.startswith(f"{CONFIGS}/") and path.count("/") == 1 and path.endswith(".pbtxt"):
            parse(read_given(found.files[path].read_bytes(), found.files[path]), found.folder / path)
            variants.append(Path(path).stem)
    newest = max(parts.versions, default=0)
    backend = backend_of(message, name, parts.versions.get(newest, ()))
    if backend is None:
        raise SpecError(
            "nothing says which backend serves this model",
            place=place,
            expected="`backend` in its config.pbtxt, or a file such as model.onnx in its version folder",
            found=", ".join(parts.versions.get(newest, ())[:6]) or "no files",
        )
    versions = tuple(parts.versions)
    if not versions:
        if backend != ENSEMBLE:
            raise SpecError(
                "a model has no version",
                place=place,
                expected="a folder such as 1/ with its files",
                found=", ".join(sorted(found.files)[:6]),
                hint="Triton does not load it; move it out of the repository, or give it its version folder",
            )
        versions = (1,)
        warnings.append(
            f"{name}: has no version folder (version control keeps no empty ones), so Triton does not load it; "
            "the spec gives it version 1"
        )
    served = tuple(served_versions(message, versions))
    if not served:
        raise SpecError(
            "the version policy of a model serves none of its versions",
            place=Place(found.folder / CONFIG),
            expected=" or ".join(str(number) for number in versions),
            found=" ".join(str(message.version_policy).split()),
        )
    if message.version_policy.WhichOneof("policy_choice") == "specific":
        gone = sorted(set(message.version_policy.specific.versions) - set(versions))
        if gone:
            warnings.append(f"{name}: its version policy names {', '.join(map(str, gone))}, which it does not have")
    if message.name not in ("", name):
        warnings.append(f'{name}: its config.pbtxt says `name: "{message.name}"`, and Triton refuses that of a folder')
    size = sum(file.stat().st_size for file in found.files.values())
    return ImportedModel(
        name, backend, versions, served, parts.config, tuple(variants), len(found.files), size, message, found
    )


def _triton(models: list[ImportedModel], asked: str | None, warnings: list[str]) -> str | None:
    """The Triton to build for: the one asked for, else the embedded one where it knows every field, else the first
    that does.

    Raises:
        SpecError: the one asked for does not know a field.
    """
    release = asked or resolve_platform("local", PlatformSpec()).triton
    needed: tuple[str, str, str] | None = None
    for model in models:
        for item in unknown_fields(model.message, release):
            if asked is not None:
                raise SpecError(
                    f"Triton {asked} does not know `{item.path}`",
                    place=Place(model.found.folder / CONFIG),
                    found=f"`{item.path}`, which {item.since} and later have",
                    hint="name a later release with --triton",
                )
            if item.since != "?" and (needed is None or item.since > needed[0]):
                needed = (item.since, item.path, model.name)
    if needed is None:
        return asked
    since, path, name = needed
    warnings.append(
        f"{name}: `{path}` is a field of Triton {since} and later: the platform is for {since}, and the embedded "
        f"Triton, {release}, cannot load this model"
    )
    return since


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


@contextmanager
def _alone(into: Path) -> Iterator[Path]:
    """A staging folder in ``into``, which no other import writes to meanwhile; gone afterwards."""
    made = not into.exists()
    into.mkdir(parents=True, exist_ok=True)
    holder = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    staging = into / STAGING
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another import writes to {into} now", hint="wait for its end") from None
        _undo(into)
        staging.mkdir()
        try:
            yield staging
        except BaseException:
            _undo(into)
            if made and not any(into.iterdir()):
                into.rmdir()
            raise
    finally:
        os.close(holder)


def _unfinished(into: Path) -> list[str]:
    """What an import that was stopped before its end has put in place already. The spec comes last, and is the end."""
    staging = into / STAGING
    if not (staging / WHOLE).exists() or not (staging / SPEC).exists():
        return []
    return [name for name in (LOCK, MODELS) if not (staging / name).exists()]


def _undo(into: Path) -> None:
    """Take away what an import that did not come to its end has left."""
    for name in _unfinished(into):
        _remove(into / name)
    _remove(into / STAGING)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish(staging: Path, into: Path) -> None:
    """Put everything in its place, the spec last."""
    for base, _, _ in os.walk(staging):
        fsync_folder(Path(base))
    write_atomic(staging / WHOLE, b"")
    for name in (MODELS, LOCK, SPEC):
        (staging / name).rename(into / name)
        fsync_folder(into)
    shutil.rmtree(staging)
