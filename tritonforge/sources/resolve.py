"""From a ``SourceRef`` to files on this machine with their digests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.digest import FileDigests, digest_of
from tritonforge.errors import EnvironmentLacks, Place, SpecError, did_you_mean
from tritonforge.spec.lock import Lock, LockedSource
from tritonforge.spec.source import SourceRef

SKIPPED: Final = {"__pycache__", ".git", ".ipynb_checkpoints", ".DS_Store"}
"""Files and folders that tools leave behind: no part of any source."""
LINKED_FROM: Final = 16 << 20
"""Bytes from which a file is linked, where the spec allows it: smaller ones are edited by hand."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a step reads: where it lies now, and what it holds; ``stamp`` as :class:`Read` has it.

    ``link`` says that the store may take over the file itself.
    """

    path: Path
    sha256: str
    size: int
    stamp: str | None = field(default=None, compare=False)
    link: bool = field(default=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Its content, without the place: what a key is made of."""
        return {"sha256": self.sha256, "size": self.size}

    def for_worker(self) -> dict[str, str | bool | None]:
        """What the process that runs the step is told of it, as plain data."""
        return {"path": str(self.path), "sha256": self.sha256, "stamp": self.stamp, "link": self.link}


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves sources of one spec: ``folder`` is the spec's, ``cache`` keeps fetched packages.

    What was resolved is noted in ``lock``; what the lock says already is held to. ``reading`` is told of every file
    that is not known yet before it is read.
    """

    folder: Path
    cache: Path
    digests: FileDigests
    lock: Lock
    update: bool = False
    reading: Callable[[Path], None] = lambda path: None

    def file(self, source: SourceRef, place: Place) -> SourceFile:
        """The one file that ``source`` names.

        Raises:
            SpecError: it is missing, a folder, or not the content that the spec or the lock expects.
            EnvironmentLacks: its package can be neither found nor fetched.
        """
        if source.hub is not None or self._in_package(source):
            raise SpecError("a source is a folder", place=place, found=str(source), expected="a file")
        if source.package is not None:
            return self._from_package(source, place)
        path = self._path(source, place)
        if path.is_dir():
            raise SpecError("a source is a folder", place=place, found=str(path), expected="a file")
        found = self.read(path, link=source.link)
        self._expect(found, source, place)
        return found

    def tree(self, source: SourceRef, place: Place, *, compiled: bool = False) -> dict[str, SourceFile]:
        """The file, or all files of the folder, that ``source`` names, by POSIX path below it.

        A hub's model is a folder of those of its files that count. ``compiled`` takes ``.pyc`` files too, where they
        are no cache.
        """
        if source.hub is not None:
            return self._from_hub(source, place)
        if self._in_package(source):
            return self._from_package_folder(source, place)
        if source.package is None:
            path = self._path(source, place)
            if path.is_dir():
                files = {
                    file.relative_to(path).as_posix(): self.read(file, link=source.link)
                    for file in _walk(path, place, compiled)
                }
                self._expect_folder(files, source, place)
                return files
            found = self.read(path, link=source.link)
            self._expect(found, source, place)
        else:
            found = self._from_package(source, place)
        return {found.path.name: found}

    def glob(self, pattern: str, place: Place) -> dict[str, SourceFile]:
        """The files of the spec's folder that a pattern names, by POSIX path below it.

        Raises:
            SpecError: nothing matches, or the pattern leaves the folder.
        """
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise SpecError("files of a pattern lie inside the spec's folder", place=place, found=pattern)
        matches = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        if not matches:
            raise SpecError("no file matches", place=place, found=pattern)
        return {path.relative_to(self.folder).as_posix(): self.read(path) for path in matches}

    def is_folder(self, source: SourceRef) -> bool:
        """Whether ``source`` names a folder."""
        if source.hub is not None or self._in_package(source):
            return True
        return source.path is not None and self._where(source).is_dir()

    def subfolders(self, source: SourceRef, files: Iterable[str]) -> set[str]:
        """The folders right below a source folder, the empty ones with them; ``files`` are its files by path."""
        found = {path.split("/", 1)[0] for path in files if "/" in path}
        if source.path is not None:
            found |= {item.name for item in self._where(source).iterdir() if item.is_dir()}
        return found - SKIPPED

    @staticmethod
    def _in_package(source: SourceRef) -> bool:
        """Whether ``source`` names a folder of a package."""
        return source.file is not None and source.file.endswith("/")

    def _where(self, source: SourceRef) -> Path:
        assert source.path is not None
        path = Path(source.path)
        return (self.folder / (path.expanduser() if source.path.startswith("~") else path)).absolute()

    def _path(self, source: SourceRef, place: Place) -> Path:
        path = self._where(source)
        try:
            usable = path.is_file() or path.is_dir()
            exists = usable or path.exists()
        except OSError as error:
            raise SpecError(f"cannot read a source: {error.strerror}", place=place, found=str(path)) from None
        if exists and not usable:
            raise SpecError("a source is neither a file nor a folder", place=place, found=str(path))
        if not exists:
            near = (
                did_you_mean(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else None
            )
            raise SpecError("a source is missing", place=place, expected="a file or folder", found=str(path), hint=near)
        return path

    def read(self, path: Path, *, link: bool = False) -> SourceFile:
        """What a file holds; with ``link`` the store may take over the file itself, if it is large.

        Raises:
            SpecError: it cannot be read.
            EnvironmentLacks: it cannot be linked from the store.
        """
        try:
            found = self.digests.digest(path, self.reading)
            link = link and found.size >= LINKED_FROM
            if link:
                self._linkable(path)
        except OSError as error:
            raise SpecError(f"cannot read a source: {error.strerror}", found=str(path)) from None
        return SourceFile(path, *found, link)

    def _linkable(self, path: Path) -> None:
        found, home = path.stat(), self.cache
        while not home.exists():
            home = home.parent
        why = None
        if found.st_uid != os.geteuid():
            why = "it is another user's file"
        elif found.st_dev != home.stat().st_dev:
            why = f"it is on another file system than the store, {self.cache.parent}"
        if why is not None:
            raise EnvironmentLacks(
                "a source with `link: true` cannot become the store's own file",
                place=Place(path),
                found=why,
                hint="drop `link: true` for a copy, or set TRITONFORGE_HOME to a folder beside it",
            )

    def _from_package(self, source: SourceRef, place: Place) -> SourceFile:
        from tritonforge.sources.package import package_file

        assert source.package is not None and source.file is not None
        name = str(source)
        locked = None if self.update else self.lock.sources.get(name)
        version = source.version or (None if locked is None else locked.version)
        path, resolved = package_file(source.package, version, source.file, self.cache, place)
        found = self.read(path)
        self._expect(found, source, place)
        self._note(name, LockedSource(resolved, found.sha256), locked, place)
        return found

    def _from_package_folder(self, source: SourceRef, place: Place) -> dict[str, SourceFile]:
        from tritonforge.sources.package import package_tree

        assert source.package is not None and source.file is not None
        name = str(source)
        locked = None if self.update else self.lock.sources.get(name)
        version = source.version or (None if locked is None else locked.version)
        paths, resolved = package_tree(source.package, version, source.file, self.cache, place)
        files = {below: self.read(path) for below, path in paths.items()}
        found = self._expect_folder(files, source, place)
        self._note(name, LockedSource(resolved, found), locked, place)
        return files

    def _from_hub(self, source: SourceRef, place: Place) -> dict[str, SourceFile]:
        """The pinned commit from the hub's cache where it is whole there, else from the hub."""
        from tritonforge.sources import hub

        assert source.hub is not None
        name = str(source)
        locked = None if self.update else self.lock.sources.get(name)
        if locked is not None and locked.version is not None:
            paths = hub.cached(source.hub, locked.version, place)
            files = {below: self.read(path) for below, path in paths.items()}
            if files and _folder_digest(files) == locked.sha256:
                self._expect_folder(files, source, place)
                return files
        paths, commit = hub.fetched(source.hub, source.revision if locked is None else locked.version, place)
        files = {below: self.read(path) for below, path in paths.items()}
        found = self._expect_folder(files, source, place)
        self._note(name, LockedSource(commit, found), locked, place)
        return files

    def _note(self, name: str, found: LockedSource, locked: LockedSource | None, place: Place) -> None:
        """Keep in the lock what a source resolved to.

        Raises:
            SpecError: the lock has another content for it.
        """
        if locked is not None and locked.sha256 != found.sha256:
            raise SpecError(
                f"{name} is not what forge.lock says",
                place=place,
                expected=f"sha256 {locked.sha256}",
                found=f"sha256 {found.sha256}",
                hint="if the change is wanted, run `tritonforge build --update-sources`",
            )
        self.lock.sources[name] = found

    @staticmethod
    def _expect_folder(files: Mapping[str, SourceFile], source: SourceRef, place: Place) -> str:
        """The digest of a folder, which is the one that the spec expects, where it does."""
        found = _folder_digest(files)
        if source.sha256 is not None and found != source.sha256:
            raise SpecError(
                "a source folder is not the one that the spec expects",
                place=place,
                expected=source.sha256,
                found=found,
            )
        return found

    @staticmethod
    def _expect(found: SourceFile, source: SourceRef, place: Place) -> None:
        if source.sha256 is not None and source.sha256 != found.sha256:
            raise SpecError(
                "a source is not the content that the spec expects",
                place=place,
                expected=f"sha256 {source.sha256}",
                found=f"sha256 {found.sha256} in {found.path}",
            )


def _folder_digest(files: Mapping[str, SourceFile]) -> str:
    return digest_of({name: file.sha256 for name, file in files.items()})


def _walk(folder: Path, place: Place, compiled: bool) -> Iterator[Path]:
    """Files below ``folder``; links point somewhere inside it, and never back to a folder that they stand in.

    A snapshot in the Hugging Face hub's cache is made of links into the ``blobs`` beside it.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots" and (root.parent.parent / "blobs").is_dir():
        root = root.parent.parent
    for base, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        files = sorted(name for name in names if name not in SKIPPED and (compiled or not name.endswith(".pyc")))
        for name in (*folders, *files):
            path = Path(base) / name
            if not name.isascii():
                try:
                    name.encode()
                except UnicodeEncodeError:
                    raise SpecError(
                        "a file name in a source folder is not UTF-8",
                        place=place,
                        found=repr(str(path)),
                        hint="rename it, or move it out of the folder",
                    ) from None
            if path.is_symlink():
                _check_link(path, root, place)
            if name in files and path.is_file():
                yield path


def _check_link(path: Path, root: Path, place: Place) -> None:
    target = path.resolve()
    wrong = None
    if not target.is_relative_to(root):
        wrong = "leads out of it"
    elif not target.exists():
        wrong = "leads nowhere"
    elif any(above.resolve() == target for above in path.parents):
        wrong = "leads back to where it stands"
    if wrong is not None:
        raise SpecError(f"a link in a source folder {wrong}", place=place, found=str(path))
