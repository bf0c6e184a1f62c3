"""A bundle: one file that takes a release to where no network leads, and shows there that it is whole.

It is a tar, compressed with zstd, of ``manifest.json``, its signature (``manifest.json.sig``, where one was asked for),
``sbom.cdx.json`` and the release (``release.json``, ``models/``, ``golden/``), in this order. Equal releases give equal
bundles, under one version of tritonforge and of libzstd: nothing in them tells when, where or by whom they were made.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from tritonforge.artifact.digest import digest_bytes
from tritonforge.durable import disk_errors, fault_point, replacing, write_atomic
from tritonforge.errors import CheckFailed, Place
from tritonforge.repository import bundle_tar
from tritonforge.repository.bundle_manifest import (
    MANIFEST,
    MAX_MANIFEST,
    RELEASE,
    SBOM,
    SIGNATURE,
    File,
    Image,
    Manifest,
    release_contents,
    unsafe,
)
from tritonforge.repository.bundle_signature import HASH, PublicKey, sign
from tritonforge.repository.bundle_zstd import compressing
from tritonforge.repository.release import Release
from tritonforge.repository.sbom import (
    MAX_REQUIREMENTS,
    Materials,
    bill_of_materials,
    is_requirements,
    requirement_lines,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done."""

BUNDLE_FAULTS: Final[tuple[str, ...]] = (
    "bundle.write",
    "bundle.rename",
    "bundle.renamed",
    "bundle.signature.rename",
    "bundle.signature.renamed",
    "import.stage",
    "import.staged",
    "import.rename",
    "import.renamed",
)
"""The durable steps of exporting and importing, for ``TRITONFORGE_FAULT`` (see :mod:`tritonforge.durable`)."""

_MADE_BY_SERVING: Final = "__pycache__"
"""Python writes its bytecode beside a model that it serves; that is no part of the release."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that was written. ``size`` is its own, ``content`` that of the files in it, in bytes."""

    file: Path
    manifest: Manifest
    sha256: str
    size: int
    content: int
    signer: PublicKey | None
    signature_file: Path | None


def signature_file(file: Path) -> Path:
    """Where the signature of the whole file stands."""
    return file.with_name(file.name + ".sig")


def export_bundle(
    release: Release,
    image: Image,
    file: Path,
    *,
    key: Ed25519PrivateKey | None = None,
    detached: bool = False,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write the bundle of a release; ``file`` is replaced in one rename, or left as it was.

    ``key`` signs the manifest, and so all that it names; ``detached`` signs the file as well, into ``FILE.sig``.

    Raises:
        CheckFailed: the release is not what its ``release.json`` says.
        EnvironmentLacks: a package is absent, the disk is full, or the file cannot be written.
    """
    manifest, bill = describe(release, image)
    signature = None if key is None else sign(key, hashlib.new(HASH, manifest.text).digest())
    beside = signature_file(file)
    sha256, signed = hashlib.sha256(), hashlib.new(HASH)
    with disk_errors("cannot write the bundle", file):
        with replacing(file, before="bundle.rename", after="bundle.renamed") as stream:
            whole = _Counting(stream, sha256.update, *([signed.update] if detached else []))
            with contextlib.closing(compressing(cast(BinaryIO, whole))) as packed:
                archive = _Counting(packed)
                _write(cast(BinaryIO, archive), release, manifest, bill, signature, progress)
                bundle_tar.write_end(cast(BinaryIO, archive), archive.size)
            # A signature of what stood here before would accuse the new file.
            beside.unlink(missing_ok=True)
        if key is not None and detached:
            armour = sign(key, signed.digest())
            write_atomic(beside, armour, before="bundle.signature.rename", after="bundle.signature.renamed")
    return Exported(
        file,
        manifest,
        sha256.hexdigest(),
        whole.size,
        manifest.size,
        None if key is None else PublicKey(key.public_key().public_bytes_raw()),
        beside if key is not None and detached else None,
    )


def describe(release: Release, image: Image) -> tuple[Manifest, bytes]:
    """The manifest of a release, and its bill of materials.

    Raises:
        CheckFailed: the folder holds other files than its ``release.json`` names.
        EnvironmentLacks: the package that writes bills of materials is absent.
    """
    text = (release.folder / RELEASE).read_bytes()
    if digest_bytes(text) != release.digest:
        raise _damaged(release, "release.json is not the one that the folder is named for")
    contents = release_contents(release.document, text)
    _check_folder(release, contents.files)
    bill = bill_of_materials(
        Materials(
            release.digest,
            release.document,
            (image.reference, image.digest),
            _requirements(release),
            {entry["folder"]: _members(release, entry) for entry in release.models() if entry["kind"] == "ensemble"},
        )
    )
    manifest = Manifest(
        release=release.digest,
        name=str(release.document["name"]),
        platform=dict(release.document["platform"]),
        image=image,
        files=dict(sorted({**contents.files, SBOM: File(sha256=digest_bytes(bill), size=len(bill))}.items())),
        folders=list(contents.folders),
    )
    if len(manifest.text) > MAX_MANIFEST:
        raise CheckFailed("the release has too many files for a bundle", found=f"{len(manifest.files)} files")
    return manifest, bill


def _write(
    archive: BinaryIO, release: Release, manifest: Manifest, bill: bytes, signature: bytes | None, progress: Progress
) -> None:
    own = {MANIFEST: manifest.text, **({} if signature is None else {SIGNATURE: signature}), SBOM: bill}
    for name, data in own.items():
        bundle_tar.write_file(archive, name, len(data), io.BytesIO(data), lambda piece: None)
    fault_point("bundle.write")
    for name in manifest.folders:
        bundle_tar.write_folder(archive, name)
    done = len(bill)
    for name in sorted(manifest.files.keys() - {SBOM}, key=lambda path: (path != RELEASE, path)):
        wanted, digest = manifest.files[name], hashlib.sha256()
        with (release.folder / name).open("rb") as source:

            def seen(piece: bytes, digest: hashlib._Hash = digest) -> None:
                nonlocal done
                digest.update(piece)
                done += len(piece)
                progress(done, manifest.size)

            bundle_tar.write_file(archive, name, wanted.size, source, seen)
        if digest.hexdigest() != wanted.sha256:
            raise _damaged(release, f"{name} has changed", expected=wanted.sha256, found=digest.hexdigest())


def _check_folder(release: Release, files: Mapping[str, File]) -> None:
    """Refuse a folder that Triton would read more from than its document names."""
    here: set[str] = set()
    for base, folders, names in os.walk(release.folder):
        folders[:] = sorted(name for name in folders if name != _MADE_BY_SERVING)
        here |= {(Path(base) / name).relative_to(release.folder).as_posix() for name in names}
        for name in (*folders, *names):
            if (Path(base) / name).is_symlink():
                raise _damaged(release, f"{(Path(base) / name).relative_to(release.folder)} is a link")
    for path in sorted(here ^ files.keys()):
        raise _damaged(release, f"{path} is {'not of it' if path in here else 'missing'}")
    for path in files:
        reason = unsafe(path)
        if reason is not None:
            raise CheckFailed("the release has a file whose name no bundle takes", found=repr(path), expected=reason)


def _damaged(release: Release, why: str, *, expected: str | None = None, found: str | None = None) -> CheckFailed:
    return CheckFailed(
        f"the release {release.digest[:12]} is damaged: {why}",
        place=Place(release.folder),
        expected=expected,
        found=found,
        hint="`tritonforge build --force` reads every file of it, and replaces it from the store",
    )


def _requirements(release: Release) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in release.models():
        for path, item in entry["files"].items():
            if is_requirements(path) and item["size"] <= MAX_REQUIREMENTS:
                text = (release.models_folder / entry["folder"] / path).read_text(encoding="utf-8", errors="replace")
                lines = found.setdefault(entry["folder"], [])
                lines += [line for line in requirement_lines(text) if line not in lines]
    return found


def _members(release: Release, entry: Mapping[str, str]) -> list[str]:
    return sorted({step.model_name for step in release.config(entry["folder"]).ensemble_scheduling.step})


class _Counting:
    """Passes bytes on, knows how many they were, and tells ``seen`` of them."""

    def __init__(self, stream: BinaryIO, *seen: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._seen = seen
        self.size = 0

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        self.size += len(data)
        for tell in self._seen:
            tell(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
