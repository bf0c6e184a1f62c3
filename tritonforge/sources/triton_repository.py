"""A Triton repository that somebody else made: which folders are models, and which files they have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tritonforge.errors import EnvironmentLacks, Place, SpecError, UsageError
from tritonforge.sources.model_folder import CONFIG, ModelFolder, read_folder
from tritonforge.sources.resolve import SKIPPED

_REMOTE: Final = ("s3:", "gs:", "as:", "az:", "http:", "https:")


@dataclass(frozen=True, slots=True)
class Left:
    """Something in the repository that is not taken, by its path in it, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model's folder: ``files`` are the real files (links are followed) by POSIX path in it."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    parts: ModelFolder


@dataclass(frozen=True, slots=True)
class Repository:
    """The models by name, and what else lies there."""

    root: Path
    models: Mapping[str, FoundModel]
    left: tuple[Left, ...]


def read_repository(root: Path, *, follow_links: bool = False) -> Repository:
    """Look through a repository; no file is read. ``follow_links`` allows links that lead out of it.

    Raises:
        UsageError: it is no repository; the message says what it is instead.
        SpecError: a model's folder cannot be taken.
        EnvironmentLacks: something cannot be read.
    """
    _check_root(root)
    walk = _Walk(root.resolve(), follow_links, [])
    models = {}
    try:
        for item in sorted(root.iterdir()):
            if item.name.startswith(".") or item.name in SKIPPED:
                walk.left.append(Left(item.name, "hidden"))
            elif not item.is_dir():
                walk.left.append(Left(item.name, "no folder: Triton does not read it"))
            else:
                found = walk.model(item)
                if found is not None:
                    models[item.name] = found
    except OSError as error:
        raise EnvironmentLacks(
            f"cannot read the repository: {error.strerror}", place=Place(Path(error.filename or root))
        ) from None
    if not models:
        raise UsageError(
            f"{root} is no Triton repository",
            expected="a folder for each model, with a config.pbtxt or version folders such as 1/ in it",
            found=", ".join(f"{item.path} ({item.why})" for item in walk.left[:4]) or "an empty folder",
        )
    return Repository(root, models, tuple(walk.left))


def _check_root(root: Path) -> None:
    """Say what is given where it is something else than a repository."""
    text = str(root)
    if text.startswith(_REMOTE):
        raise UsageError(
            "a repository is imported from a folder of this machine", found=text, hint="copy it here first"
        )
    if not root.exists():
        raise UsageError(f"there is no folder {root}")
    if not root.is_dir():
        raise UsageError(
            f"{root} is a file",
            expected="the folder that Triton's --model-repository names",
            hint="`tritonforge release import` takes a bundle in; unpack an archive first",
        )
    if (root / "release.json").is_file() and (root / "models").is_dir():
        raise UsageError(
            f"{root} is a release of tritonforge", hint=f"its repository is {root / 'models'}, should you want that"
        )
    if (root / "forge.yaml").is_file():
        raise UsageError(
            f"{root} has a forge.yaml: it is no plain repository", hint="`tritonforge build` builds what is there"
        )
    if (root / CONFIG).is_file():
        raise UsageError(
            f"{root} is the folder of one model",
            expected="the folder that Triton's --model-repository names, which holds the models' folders",
            found=f"a {CONFIG} right in it",
            hint=f"give its parent, {root.absolute().parent}",
        )


@dataclass(slots=True)
class _Walk:
    root: Path
    follow_links: bool
    left: list[Left]

    def model(self, folder: Path) -> FoundModel | None:
        """The model of a folder; None where it holds none."""
        files = {path.relative_to(folder).as_posix(): real for path, real in self.files(folder, ())}
        folders = {item.name for item in folder.iterdir() if item.is_dir()} - SKIPPED
        parts = read_folder(files, folders, Place(folder))
        if not parts.config and not parts.versions:
            self.left.append(Left(folder.name, "neither config.pbtxt nor a version folder in it"))
            return None
        return FoundModel(folder.name, folder, files, parts)

    def files(self, folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
        """Every file below, with the real one that it stands for."""
        real = folder.resolve()
        if real in above:
            raise SpecError("a link leads back to a folder that it stands in", place=Place(folder), found=str(real))
        with os.scandir(folder) as entries:
            items = sorted(entries, key=lambda item: item.name)
        for item in items:
            path = Path(item.path)
            try:
                item.name.encode()
            except UnicodeEncodeError:
                raise SpecError(
                    "a file's name is not UTF-8", place=Place(folder), found=repr(item.name), hint="rename it"
                ) from None
            if item.name in SKIPPED:
                self.left.append(Left(os.path.relpath(path, self.root), "made by a tool"))
                continue
            target = self.real(path) if item.is_symlink() else path
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                yield from self.files(path, (*above, real))
            elif stat.S_ISREG(mode):
                if not os.access(target, os.R_OK):
                    raise EnvironmentLacks("a file of the repository cannot be read", place=Place(path))
                yield path, target
            else:
                raise SpecError("neither a file nor a folder", place=Place(path), hint="move it out of the repository")

    def real(self, path: Path) -> Path:
        """Where a link leads."""
        target = path.resolve()
        if not target.exists():
            raise SpecError("a link leads nowhere", place=Place(path), found=str(path.readlink()))
        if not self.follow_links and not target.is_relative_to(self.root):
            raise SpecError(
                "a link leads out of the repository",
                place=Place(path),
                found=str(target),
                hint="--follow-links takes what it leads to",
            )
        return target
