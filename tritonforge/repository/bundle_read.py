"""Reading a bundle that may be damaged or hostile: every byte is held to its manifest while it streams past.

The manifest comes first, with the size and hash of all else; it is bounded, and nothing larger than a piece is kept of
the rest. Signatures are settled before any byte of the release is written anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from tritonforge.artifact.artifact import inside
from tritonforge.errors import CheckFailed, UsageError
from tritonforge.repository.bundle import Progress, signature_file
from tritonforge.repository.bundle_manifest import (
    MANIFEST,
    MAX_MANIFEST,
    RELEASE,
    SBOM,
    SIGNATURE,
    Manifest,
    parse_manifest,
    release_contents,
)
from tritonforge.repository.bundle_signature import MAX_SIGNATURE, PublicKey, Signature, parse_signature
from tritonforge.repository.bundle_tar import Member, read_members
from tritonforge.repository.bundle_verdict import Problem, Verdict
from tritonforge.repository.bundle_zstd import Decompressed

_MAX_PROBLEMS: Final = 100


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count. Without ``keys`` anybody's does; with them the bundle must have one of theirs."""

    keys: tuple[PublicKey, ...] | None = None
    required: bool = False


ANYONE: Final = Trust()
"""No signature is asked for."""


def read_bundle(
    file: Path,
    trust: Trust = ANYONE,
    *,
    unpack: Path | None = None,
    accept: Callable[[Manifest], None] = lambda manifest: None,
    progress: Progress = lambda done, total: None,
) -> Verdict:
    """Read all of a bundle and say what is wrong with it.

    ``unpack`` is an empty folder that gets the release, durable on the disk; what is in it counts only when the
    verdict is good. ``accept`` sees the manifest first and may raise.

    Raises:
        UsageError: there is no such file.
        EnvironmentLacks: a package is absent, or ``unpack`` cannot be written.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise UsageError("the bundle cannot be read", found=f"{file}: {error.strerror}") from None
    reading = _Reading(file, trust, unpack, accept, progress)
    beside = signature_file(file)
    if beside.exists():
        with reading.noting():
            reading.check_detached(beside)
    with reading.noting(), contextlib.closing(_opened(file)) as stream:
        reading.read(stream)
    return Verdict(file, reading.manifest, tuple(reading.problems), reading.signer, reading.trusted, size)


def _opened(file: Path) -> Decompressed:
    try:
        return Decompressed(file)
    except OSError as error:
        raise UsageError("the bundle cannot be read", found=f"{file}: {error.strerror}") from None


@dataclass(slots=True)
class _Reading:
    file: Path
    trust: Trust
    unpack: Path | None
    accept: Callable[[Manifest], None]
    progress: Progress
    manifest: Manifest | None = None
    problems: list[Problem] = field(default_factory=list)
    signer: PublicKey | None = None
    trusted: bool | None = None

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """A check that fails ends the reading, and is the verdict."""
        try:
            yield
        except CheckFailed as error:
            self.problems.append(Problem(error.message, None, error.expected, error.found))

    def check_detached(self, beside: Path) -> None:
        with beside.open("rb") as stream:
            signature = parse_signature(stream.read(MAX_SIGNATURE + 1))
        with self.file.open("rb") as whole:
            digest = hashlib.file_digest(whole, signature.hash_name).digest()
        self._admit(signature, digest, beside.name)

    def read(self, stream: Decompressed) -> None:
        members = read_members(stream)
        first = next(members, None)
        if first is None or first.name != MANIFEST or first.folder:
            raise CheckFailed(
                "this is no bundle of tritonforge",
                expected=f"{MANIFEST} as its first file",
                found="an empty archive" if first is None else repr(first.name)[:300],
            )
        text = _whole(first, MAX_MANIFEST)
        self.manifest = parse_manifest(text)
        second = next(members, None)
        if second is not None and second.name == SIGNATURE and not second.folder:
            signature = parse_signature(_whole(second, MAX_SIGNATURE))
            self._admit(signature, hashlib.new(signature.hash_name, text).digest(), SIGNATURE)
            second = next(members, None)
        if self.signer is None and (self.trust.required or self.trust.keys is not None):
            raise CheckFailed("the bundle is not signed")
        if self.problems and self.unpack is not None:
            return
        self.accept(self.manifest)
        self._read_files(second, members)

    def _admit(self, signature: Signature, digest: bytes, where: str) -> None:
        """Note a signature that holds; one that does not, or is by another than asked for, ends the reading."""
        if not signature.holds(digest):
            raise CheckFailed(f"the signature in {where} does not fit: something was changed after it was made")
        keys = self.trust.keys
        if keys is not None and signature.key not in keys:
            raise CheckFailed(
                f"the signature in {where} is by another key",
                expected=" or ".join(key.fingerprint for key in keys),
                found=signature.key.fingerprint,
            )
        self.signer, self.trusted = signature.key, None if keys is None else True

    def _read_files(self, member: Member | None, members: Iterator[Member]) -> None:
        manifest = self.manifest
        assert manifest is not None
        folders, seen, done = set(manifest.folders), set[str](), 0
        document: bytes | None = None
        while member is not None:
            if member.name in seen:
                raise CheckFailed("the bundle has a file twice", found=repr(member.name)[:300])
            seen.add(member.name)
            if member.folder:
                if member.name not in folders:
                    raise CheckFailed(
                        "the bundle has a folder that its manifest does not name", found=repr(member.name)[:300]
                    )
                if self.unpack is not None:
                    inside(self.unpack, member.name).mkdir(parents=True, exist_ok=True)
            else:
                wanted = manifest.files.get(member.name)
                if wanted is None:
                    raise CheckFailed(
                        "the bundle has a file that its manifest does not name", found=repr(member.name)[:300]
                    )
                if wanted.size != member.size:
                    raise CheckFailed(
                        f"{member.name} has another size than the manifest says",
                        expected=f"{wanted.size} bytes",
                        found=f"{member.size} bytes",
                    )
                kept: list[bytes] | None = [] if member.name == RELEASE else None
                digest = hashlib.sha256()
                with self._target(member.name) as target:
                    for piece in member.pieces():
                        digest.update(piece)
                        if target is not None:
                            target.write(piece)
                        if kept is not None:
                            kept.append(piece)
                        done += len(piece)
                        self.progress(done, manifest.size)
                if digest.hexdigest() != wanted.sha256:
                    self._note(Problem("a file is damaged", member.name, wanted.sha256, digest.hexdigest()))
                elif kept is not None:
                    document = b"".join(kept)
            member = next(members, None)
        for path in sorted((manifest.files.keys() | folders) - seen):
            self._note(Problem("a file is missing", path))
        if document is not None:
            self._check_release(manifest, document)

    def _check_release(self, manifest: Manifest, text: bytes) -> None:
        """Hold the manifest to the release's own document: what is deployed is what that one names."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckFailed("release.json is no JSON", found=str(error)) from None
        contents = release_contents(document, text)
        named = {path: file for path, file in manifest.files.items() if path != SBOM}
        for path in sorted(named.keys() ^ contents.files.keys()):
            there = "the manifest" if path in named else "release.json"
            self._note(Problem(f"only {there} names a file", path))
        for path in sorted(named.keys() & contents.files.keys()):
            if named[path] != contents.files[path]:
                self._note(Problem("the manifest and release.json differ about a file", path))
        if tuple(manifest.folders) != contents.folders:
            self._note(Problem("the manifest and release.json differ about the folders"))
        if document.get("name") != manifest.name or document.get("platform") != manifest.platform:
            self._note(Problem("the manifest and release.json differ about the name or the platform"))

    def _note(self, problem: Problem) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(problem)

    @contextlib.contextmanager
    def _target(self, name: str) -> Iterator[BinaryIO | None]:
        if self.unpack is None or name == SBOM:
            yield None
            return
        path = inside(self.unpack, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), 0o444)
            os.fsync(stream.fileno())


def _whole(member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise CheckFailed(f"{member.name} is too large", expected=f"at most {limit} bytes", found=f"{member.size}")
    return b"".join(member.pieces())
