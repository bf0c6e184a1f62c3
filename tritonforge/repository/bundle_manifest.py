"""``manifest.json`` of a bundle: what it holds, with the size and sha256 of every file, so that all else is held to it.

A bundle comes from elsewhere: everything here is checked before it is believed.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tritonforge.artifact.digest import digest_bytes
from tritonforge.errors import CheckFailed

FORMAT: Final = "tritonforge-bundle"
SCHEMA: Final = 1
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.json.sig"
SBOM: Final = "sbom.cdx.json"
RELEASE: Final = "release.json"

MAX_MANIFEST: Final = 64 << 20
"""Bytes; a file of a release takes about 200."""
MAX_DOCUMENT: Final = 64 << 20
"""Bytes of ``release.json``, which is read whole."""
_MAX_PATH: Final = 1024
_MAX_NAME: Final = 255

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=_MAX_NAME)]
"""Text that is shown: nothing in it moves a terminal's cursor."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class File(_Strict):
    """A file of a bundle; ``size`` in bytes."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=1 << 50)]


class Image(_Strict):
    """The image that serves the release; ``digest`` where it is known."""

    reference: Line
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None


class Manifest(_Strict):
    """What a bundle holds. ``folders`` are those without files, which Triton wants to see all the same."""

    format: Literal["tritonforge-bundle"] = FORMAT
    schema_version: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    release: Sha256
    name: Line
    platform: dict[str, Any]
    image: Image
    files: dict[str, File]
    folders: list[str] = []

    @property
    def text(self) -> bytes:
        """The bytes of ``manifest.json``: equal for equal bundles."""
        value = self.model_dump(by_alias=True)
        return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Contents:
    """What a ``release.json`` says that its folder holds, itself included."""

    files: Mapping[str, File]
    folders: tuple[str, ...]


def release_contents(document: Mapping[str, Any], text: bytes) -> Contents:
    """All files of a release by path, and its folders without files, from its ``release.json``.

    Raises:
        CheckFailed: it is no document of a release.
    """
    files = {RELEASE: File(sha256=digest_bytes(text), size=len(text))}
    folders: set[str] = set()
    try:
        for entry in document["models"]:
            top = f"models/{entry['folder']}"
            folders.add(f"{top}/{int(entry['version'])}")
            for path, item in entry["files"].items():
                files[f"{top}/{path}"] = File(sha256=item["sha256"], size=item["size"])
        for name, kinds in document["golden"].items():
            for kind, entries in kinds.items():
                for path, item in entries.items():
                    files[f"golden/{name}/{kind}/{path}"] = File(sha256=item["sha256"], size=item["size"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckFailed(
            "release.json is no document of a release", found=f"{type(error).__name__}: {error}"
        ) from None
    filled = {parent.as_posix() for path in files for parent in PurePosixPath(path).parents}
    return Contents(files, tuple(sorted(folders - filled)))


def parse_manifest(data: bytes) -> Manifest:
    """The manifest from its bytes.

    Raises:
        CheckFailed: it is malformed, of another format, or names a path that leaves the bundle.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckFailed("manifest.json is no JSON", found=str(error)) from None
    if isinstance(value, dict) and value.get("format") == FORMAT and value.get("schema") != SCHEMA:
        raise CheckFailed(
            "the bundle has another format",
            expected=f"schema {SCHEMA}",
            found=f"schema {value.get('schema')!r}"[:60],
            hint="a newer tritonforge wrote it: read it with that one",
        )
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise CheckFailed("manifest.json is malformed", found=f"{where}: {first['msg']}") from None
    _check_paths(manifest)
    return manifest


def unsafe(path: str) -> str | None:
    """Why a path may not stand in a bundle; None where it may."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute():
        return "it is absolute or empty"
    if ".." in pure.parts:
        return "it leaves the bundle"
    if pure.as_posix() != path or path == ".":
        return "it is not in its plain form"
    if "\\" in path or any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "it has characters that no file of a release has"
    if len(path.encode()) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in pure.parts):
        return "it is too long"
    return None


def _check_paths(manifest: Manifest) -> None:
    check_paths("manifest.json", manifest.files, manifest.folders, own=(MANIFEST, SIGNATURE), beside=(SBOM,))
    if RELEASE not in manifest.files:
        raise CheckFailed("manifest.json names no release.json")
    if manifest.files[RELEASE].size > MAX_DOCUMENT:
        raise CheckFailed("release.json is too large", expected=f"at most {MAX_DOCUMENT >> 20} MiB")
    if manifest.files[RELEASE].sha256 != manifest.release:
        raise CheckFailed(
            "the release is not what release.json says", expected=manifest.release, found=manifest.files[RELEASE].sha256
        )


def check_paths(
    document: str,
    paths: Collection[str],
    folders: Collection[str],
    *,
    own: Collection[str] = (),
    beside: Collection[str] = (),
) -> None:
    """Hold the paths that a document from elsewhere names to what a release may have.

    ``own`` are names that no file may have, ``beside`` files that stand beside those of the release.

    Raises:
        CheckFailed: one leaves its folder, is no release's, or is a file and a folder.
    """
    for path in (*paths, *folders):
        reason = unsafe(path)
        if reason is None and path in own:
            reason = "that name is the bundle's own"
        if reason is None and path not in (RELEASE, *beside) and path.split("/", 1)[0] not in ("models", "golden"):
            reason = "a release has no such file"
        if reason is not None:
            raise CheckFailed(f"{document} names a path that is not taken", found=repr(path)[:300], expected=reason)
    files, places = set(paths), set(folders)
    for path in (*paths, *folders):
        over = next((parent.as_posix() for parent in PurePosixPath(path).parents if parent.as_posix() in files), None)
        if over is not None or (path in places and path in files):
            raise CheckFailed(f"{document} names a file that is also a folder", found=repr(over or path)[:300])
