"""What each folder of a repository is: its backend, its versions, and whether Triton could load it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import ForgeError, Place, SpecError
from tritonforge.repository.given import backend_of, read_given, served_versions, steps_of
from tritonforge.repository.pbtxt import new, parse
from tritonforge.repository.request import ENSEMBLE
from tritonforge.repository.schema import unknown_fields
from tritonforge.sources.model_folder import CONFIG, CONFIGS, check_size
from tritonforge.sources.triton_repository import FoundModel
from tritonforge.spec.models import PlatformSpec
from tritonforge.spec.platform import resolve_platform

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


def examined(found: list[FoundModel], warnings: list[str]) -> list[ImportedModel]:
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
        message = _config(found, CONFIG)
    variants = []
    for path in parts.beside:
        if path.startswith(f"{CONFIGS}/") and path.count("/") == 1 and path.endswith(".pbtxt"):
            _config(found, path)
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


def triton_for(models: list[ImportedModel], asked: str | None, warnings: list[str]) -> str | None:
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


def _config(found: FoundModel, path: str) -> Any:
    """A config of a model's folder."""
    file, named = found.files[path], found.folder / path
    check_size(file.stat().st_size, Place(named))
    return parse(read_given(file.read_bytes(), named), named)
