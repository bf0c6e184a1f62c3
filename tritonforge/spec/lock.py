"""``forge.lock``: resolved sources and version numbers; reviewed and committed like any lock file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tritonforge.durable import disk_errors, write_atomic
from tritonforge.errors import Place, SpecError
from tritonforge.spec.document import read

HEADER: Final = (
    "# Written by tritonforge. Commit it: it pins what sources resolved to, and which version number stands for which\n"
    "# artifact. A number is never used again; delete nothing here.\n"
)


@dataclass(frozen=True, slots=True)
class LockedSource:
    """What a source resolved to: the package's version and the content's sha256."""

    version: str | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that is served, with what was measured when it was chosen (``figures``: plain data)."""

    variant: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Lock:
    """``sources`` by the source as the spec names it; ``versions[platform][folder][number]`` is an artifact digest.

    ``pins[platform][ensemble][member]`` is the version of a member that the last release's ensemble runs (-1: the
    newest). It is there to be reviewed; the members' own numbers decide. ``choices[platform][model]`` is the variant
    that is served; only `tritonforge choose` writes it.
    """

    sources: dict[str, LockedSource] = field(default_factory=dict)
    versions: dict[str, dict[str, dict[int, str]]] = field(default_factory=dict)
    pins: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    choices: dict[str, dict[str, Choice]] = field(default_factory=dict)

    def number_for(self, platform: str, folder: str, artifact: str, *, wanted: int | None = None) -> int:
        """The version number of ``artifact`` in ``folder``: its old one, else one above all that were ever given.

        Raises:
            SpecError: ``wanted`` stands for another artifact already.
        """
        known = self.versions.setdefault(platform, {}).setdefault(folder, {})
        if wanted is not None:
            if known.get(wanted, artifact) != artifact:
                raise SpecError(
                    f"version {wanted} of '{folder}' is taken by another artifact",
                    expected=f"artifact {known[wanted][:12]}, which forge.lock has under {wanted}",
                    found=f"artifact {artifact[:12]}",
                    hint=f"drop `version:`, or ask for {max(known) + 1}: numbers are never used again",
                )
            known[wanted] = artifact
            return wanted
        numbers = [number for number, digest in known.items() if digest == artifact]
        if numbers:
            return max(numbers)
        number = max(known, default=0) + 1
        known[number] = artifact
        return number


def lock_path(spec_file: Path) -> Path:
    """``forge.lock`` beside ``forge.yaml``; another spec's lock carries its name."""
    return spec_file.with_suffix(".lock")


def read_lock(path: Path) -> Lock:
    """The lock, or an empty one where there is none.

    Raises:
        SpecError: it is not a lock (a merge conflict, a newer format).
    """
    if not path.exists():
        return Lock()
    document = read(path)
    data = document.data
    if data.get("lockVersion") != 1:
        raise SpecError(
            "this lock has a format that this tritonforge does not know",
            place=document.place(("lockVersion",)),
            expected="lockVersion: 1",
            found=repr(data.get("lockVersion")),
        )
    try:
        sources = {
            name: LockedSource(item.get("version"), str(item["sha256"]))
            for name, item in (data.get("sources") or {}).items()
        }
        versions = {
            platform: {
                folder: {int(number): str(digest) for number, digest in numbers.items()}
                for folder, numbers in folders.items()
            }
            for platform, folders in (data.get("versions") or {}).items()
        }
        pins = {
            platform: {
                ensemble: {member: int(number) for member, number in members.items()}
                for ensemble, members in ensembles.items()
            }
            for platform, ensembles in (data.get("pins") or {}).items()
        }
        choices = {
            platform: {
                model: Choice(str(item["variant"]), dict(item.get("figures") or {})) for model, item in models.items()
            }
            for platform, models in (data.get("choices") or {}).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpecError(
            "forge.lock is damaged", place=Place(path), found=repr(error), hint="restore it from version control"
        ) from None
    return Lock(sources, versions, pins, choices)


def write_lock(path: Path, lock: Lock) -> bool:
    """Write the lock in its one form, atomically; False when it already says so.

    Raises:
        EnvironmentLacks: the folder cannot be written, or the disk is full.
    """
    data: dict[str, Any] = {
        "lockVersion": 1,
        "sources": {
            name: {**({} if item.version is None else {"version": item.version}), "sha256": item.sha256}
            for name, item in sorted(lock.sources.items())
        },
        "versions": {
            platform: {folder: dict(sorted(numbers.items())) for folder, numbers in sorted(folders.items()) if numbers}
            for platform, folders in sorted(lock.versions.items())
        },
    }
    pins = {
        platform: {name: dict(sorted(members.items())) for name, members in sorted(ensembles.items())}
        for platform, ensembles in sorted(lock.pins.items())
        if ensembles
    }
    if pins:
        data["pins"] = pins
    choices = {
        platform: {
            model: {"variant": choice.variant, **({"figures": choice.figures} if choice.figures else {})}
            for model, choice in sorted(models.items())
        }
        for platform, models in sorted(lock.choices.items())
        if models
    }
    if choices:
        data["choices"] = choices
    text = (HEADER + yaml.safe_dump(data, sort_keys=False, width=200)).encode()
    with disk_errors("cannot write forge.lock", path):
        if path.exists() and path.read_bytes() == text:
            return False
        write_atomic(path, text, before="lock.rename", after="lock.renamed")
    return True
