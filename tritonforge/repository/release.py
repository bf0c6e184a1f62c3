"""Releases: immutable folders named by their digest, published by one rename and one flip of ``current``.

``build/<platform>/releases/<digest>/`` holds ``models/`` (exactly what Triton reads), ``golden/`` (the cases that prove
it) and ``release.json``, whose sha256 is the digest. Nothing in it depends on when or where it was made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact, inside
from tritonforge.artifact.digest import digest_bytes, digest_file
from tritonforge.artifact.linking import holds
from tritonforge.artifact.sealed import seal
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.store import ArtifactStore
from tritonforge.durable import (
    describe_os_error,
    disk_errors,
    each_at_once,
    exchange,
    fault_point,
    fsync_folder,
    point_link,
    write_json,
)
from tritonforge.errors import SpecError, UsageError, did_you_mean

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a release that is a file of an artifact."""

    artifact: Artifact
    path: str


Content = bytes | Stored


@dataclass(frozen=True)
class ReleaseDraft:
    """A release that is not on disk yet: its document and all its files by path."""

    document: Mapping[str, Any]
    files: Mapping[str, Content]
    folders: tuple[str, ...] = ()

    @cached_property
    def text(self) -> bytes:
        """The bytes of ``release.json``."""
        return (json.dumps(self.document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def digest(self) -> str:
        """The sha256 (hex) of ``release.json``, which names every other file's."""
        return digest_bytes(self.text)


def entry_title(entry: Mapping[str, Any]) -> str:
    """What an entry of ``models`` is called where each must be told from the others: ``network (int8)``."""
    label = entry.get("label")
    return f"{entry['folder']} ({label})" if label else str(entry["folder"])


@dataclass(frozen=True, slots=True)
class Release:
    """A release on disk."""

    folder: Path
    document: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def models_folder(self) -> Path:
        """What ``--model-repository`` takes."""
        return self.folder / "models"

    def is_whole(self) -> bool:
        """Whether every file that ``release.json`` names is there as it was published, and ``release.json`` is itself.

        Files that were written into since then are read.
        """
        try:
            if digest_file(self.folder / "release.json") != self.digest:
                return False
        except OSError:
            return False
        models = self.models_folder
        files = [
            (f"{models}/{entry['folder']}/{path}", content)
            for entry in self.models()
            for path, content in entry["files"].items()
        ]
        for name, kinds in self.document["golden"].items():
            golden = self.golden_folder(name)
            for kind, entries in kinds.items():
                files += [(f"{golden}/{kind}/{path}", content) for path, content in entries.items()]
        if not all(holds(file, content["sha256"], content["size"]) for file, content in files):
            return False
        return all(Path(f"{models}/{entry['folder']}/{entry['version']}").is_dir() for entry in self.models())

    def config(self, folder: str) -> Any:
        """The config of a folder as it was published, as a ``ModelConfig``."""
        from tritonforge.repository.pbtxt import parse

        file = self.models_folder / folder / "config.pbtxt"
        return parse(file.read_text(encoding="utf-8"), file)

    def keeps_sequences(self, folder: str) -> bool:
        """Whether a folder's model keeps something between the requests of a sequence."""
        text = (self.models_folder / folder / "config.pbtxt").read_text(encoding="utf-8")
        # Most do not name the field at all, and reading a config as a protobuf takes 50 times as long.
        return "sequence_batching" in text and bool(self.config(folder).HasField("sequence_batching"))

    def golden_folder(self, name: str) -> Path:
        """Where the cases of a public name are."""
        return self.folder / "golden" / name

    def models(self) -> list[Mapping[str, Any]]:
        """The entries of ``release.json``, one a folder of the repository."""
        return list(self.document["models"])

    def served(self, name: str) -> Mapping[str, Any]:
        """The entry that owns a public name.

        Raises:
            UsageError: there is none.
        """
        for entry in self.models():
            if entry["folder"] == name:
                return entry
        names = [entry["folder"] for entry in self.models()]
        raise UsageError(f"this release has no model '{name}'", hint=did_you_mean(name, names))

    def signature(self, name: str) -> Signature:
        """The signature behind a public name."""
        return Signature.from_json(self.served(name)["signature"])


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing did: ``new`` when the release was not there, ``flipped`` when ``current`` moved."""

    release: Release
    new: bool
    flipped: bool


class PlatformFolder:
    """``build/<platform>``: its releases, evidence and ``current``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def releases(self) -> Path:
        """Where releases are."""
        return self.root / "releases"

    @property
    def current_link(self) -> Path:
        """The only thing that changes."""
        return self.root / "current"

    def current(self) -> Release | None:
        """The release that ``current`` names."""
        try:
            return read_release(self.current_link.resolve(strict=True))
        except (OSError, SpecError):
            return None

    def find(self, reference: str | None) -> Release:
        """A release by (the beginning of) its digest; the current one without.

        Raises:
            UsageError: there is none, or several begin so.
        """
        if reference is None or reference == "current":
            found = self.current()
            if found is None:
                raise UsageError(f"{self.root} has no release yet", hint="run `tritonforge build`")
            return found
        names = [path.name for path in self._all() if path.name.startswith(reference)]
        if len(names) != 1:
            raise UsageError(
                f"{'no' if not names else 'more than one'} release begins with '{reference}'",
                found=", ".join(name[:12] for name in names) or None,
            )
        return read_release(self.releases / names[0])

    def _all(self) -> list[Path]:
        if not self.releases.is_dir():
            return []
        return [path for path in self.releases.iterdir() if len(path.name) == 64 and path.is_dir()]

    def history(self) -> list[Mapping[str, str]]:
        """When which release became current, oldest first."""
        try:
            entries = json.loads((self.root / "history.json").read_text(encoding="utf-8"))
            return [{"release": str(entry["release"]), "at": str(entry["at"])} for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            # A damaged history must not make older releases look like nobody's: their folders tell their age.
            found = sorted(self._all(), key=lambda path: path.stat().st_mtime)
            return [{"release": path.name, "at": _utc(path.stat().st_mtime)} for path in found]

    def _note_current(self) -> None:
        """Add what ``current`` names to the history, where a killed build could not."""
        current = self.current()
        entries = self.history()
        if current is not None and (not entries or entries[-1]["release"] != current.digest):
            entries = [*entries, {"release": current.digest, "at": _utc(time.time())}]
            write_json(self.root / "history.json", entries, before="history.rename")

    def publish(self, draft: ReleaseDraft, store: ArtifactStore, *, verify: bool = False) -> Published:
        """Make the release durable, then current; what was current stays whole at every instant.

        With ``verify`` a release that is there already is read and compared with its digests first.

        Raises:
            EnvironmentLacks: the folder cannot be written, or the disk is full; nothing changed then.
        """
        target = self.releases / draft.digest
        with disk_errors("cannot publish the release", target):
            self.releases.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._note_current()
            new = self._ensure(draft, store, verify=verify)
            flipped = self._flip(draft.digest)
            self._in_use_file(draft.digest)
        return Published(read_release(target), new, flipped)

    def make_current(self, release: Release) -> bool:
        """Have ``current`` name a release that is here; false where it did. The build lock is held.

        Raises:
            EnvironmentLacks: the folder cannot be written.
        """
        with disk_errors("cannot make the release current", release.folder):
            self._note_current()
            return self._flip(release.digest)

    def _flip(self, digest: str) -> bool:
        link = self.current_link
        flipped = not (link.is_symlink() and link.readlink() == Path("releases") / digest)
        if flipped:
            point_link(link, f"releases/{digest}")
        self._note_current()
        return flipped

    def admit(self, draft: ReleaseDraft, store: ArtifactStore) -> bool:
        """Put a release beside the others, whole or not at all; false where it was there. The build lock is held.

        What is current stays so.

        Raises:
            EnvironmentLacks: the folder cannot be written, or the disk is full; nothing changed then.
        """
        with disk_errors("cannot keep the release", self.releases / draft.digest):
            self.releases.mkdir(parents=True, exist_ok=True)
            self._sweep()
            new = self._ensure(draft, store, verify=False)
            self._in_use_file(draft.digest)
        return new

    def _ensure(self, draft: ReleaseDraft, store: ArtifactStore, *, verify: bool) -> bool:
        target = self.releases / draft.digest
        new = not _is_whole(target, draft) or (verify and _is_damaged(target, draft))
        if new:
            self._stage(draft, store, target)
        return new

    def _stage(self, draft: ReleaseDraft, store: ArtifactStore, target: Path) -> None:
        fault_point("release.stage")
        staging = Path(tempfile.mkdtemp(prefix=f".staging-{os.getpid()}-", dir=self.releases))
        try:
            staging.chmod(0o755)

            def put(item: tuple[str, Content]) -> None:
                path, content = item
                file = inside(staging, path)
                if isinstance(content, Stored):
                    store.place(content.artifact, content.path, file)
                else:
                    _write(file, content)

            each_at_once(put, draft.files.items())
            for folder in draft.folders:
                inside(staging, folder).mkdir(parents=True, exist_ok=True)
            _write(staging / "release.json", draft.text)
            each_at_once(fsync_folder, [Path(base) for base, _, _ in os.walk(staging) if base != str(staging)])
            fsync_folder(staging)
            fault_point("release.staged")
            fault_point("release.rename")
            if target.exists():  # a damaged one: somebody changed an immutable folder
                exchange(staging, target)
                shutil.rmtree(staging, ignore_errors=True)
            else:
                staging.rename(target)
            fsync_folder(self.releases)
            fault_point("release.renamed")
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _sweep(self) -> None:
        """Remove what killed builds left; the build lock is held, so nobody else stages here."""
        for left in self.releases.glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
        for link in self.root.glob(f".{self.current_link.name}.*.tmp"):
            link.unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self, release: Release) -> Iterator[None]:
        """Keep a release from being pruned while a process uses it; ends with the process.

        Raises:
            UsageError: it was pruned in the meantime.
        """
        try:
            file = self._in_use_file(release.digest)
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # a lock needs no right to write
        except OSError as error:
            if error.errno != errno.EROFS:
                raise describe_os_error(error, "cannot hold the release", self.root) from None
            yield  # what is on a read-only file system is not pruned
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not release.folder.is_dir():
                raise UsageError(f"the release {release.digest[:12]} was deleted", hint="run the command again")
            yield
        finally:
            os.close(descriptor)

    def _in_use_file(self, digest: str) -> Path:
        """The file whose lock says that a release is in use; made when it is published."""
        file = self.root / "in-use" / digest
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        return file

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest ``keep`` releases, the current one and those in use; their digests.

        The build lock is held.
        """
        self._sweep()
        newest = list(dict.fromkeys(reversed(self._order())))
        current = self.current()
        spared = {*newest[:keep], *([] if current is None else [current.digest])}
        gone = []
        for path in self._all():
            if path.name in spared:
                continue
            with contextlib.suppress(OSError), self._unused(path.name):
                fault_point("release.prune")
                doomed = self.releases / f".staging-pruned-{path.name[:16]}"
                path.rename(doomed)  # a half-deleted release must not look like one
                fault_point("release.pruned")
                shutil.rmtree(doomed, ignore_errors=True)
                (self.root / "in-use" / path.name).unlink(missing_ok=True)
                gone.append(path.name)
        return gone

    def _order(self) -> list[str]:
        """The releases from the oldest on; one that was imported, and never current, by the time when it came."""
        order = [(entry["at"], entry["release"]) for entry in self.history()]
        known = {release for _, release in order}
        for path in self._all():
            if path.name not in known:
                came = _utc(path.stat().st_mtime)
                place = next((place for place, (at, _) in enumerate(order) if at > came), len(order))
                order.insert(place, (came, path.name))
        return [release for _, release in order]

    @contextlib.contextmanager
    def _unused(self, digest: str) -> Iterator[None]:
        file = self.root / "in-use" / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)


def read_release(folder: Path) -> Release:
    """A release from its folder.

    Raises:
        SpecError: there is no ``release.json`` of a known format.
    """
    try:
        document = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{folder} is no release", found=str(error)) from None
    if document.get("schema") != SCHEMA:
        raise SpecError(f"{folder} has another format", expected=f"schema {SCHEMA}", found=str(document.get("schema")))
    return Release(folder, document)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _is_damaged(target: Path, draft: ReleaseDraft) -> bool:
    """Whether any file is not what its digest says; reads all of them."""
    for path, content in draft.files.items():
        wanted = content.artifact.files[content.path].sha256 if isinstance(content, Stored) else digest_bytes(content)
        if digest_file(target / path) != wanted:
            return True
    return False


def _is_whole(target: Path, draft: ReleaseDraft) -> bool:
    try:
        if (target / "release.json").read_bytes() != draft.text:
            return False
    except OSError:
        return False
    for path, content in draft.files.items():
        if isinstance(content, Stored):
            entry = content.artifact.files[content.path]
            sha256, size = entry.sha256, entry.size
        else:
            sha256, size = digest_bytes(content), len(content)
        if not holds(target / path, sha256, size):
            return False
    return all((target / folder).is_dir() for folder in draft.folders)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), 0o444)
        seal(path, digest_bytes(data))
        os.fsync(stream.fileno())
