"""Releases in an object store: their files by digest, each once, beside what names them.

``blobs/ab/<sha256>`` are files, as in the team's store; ``releases/<digest>/release.json`` names those of a release,
and its own digest is the release's name, so that a release that is asked for by its whole digest needs no trust.
``latest/<name>/<platform>.json`` says which one was pushed last, and is as true as those who may write are.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tritonforge.artifact.artifact import Artifact, FileEntry, inside
from tritonforge.artifact.digest import canonical_json, digest_bytes
from tritonforge.artifact.remote.objects import Moved, Objects
from tritonforge.artifact.remote.record import blob_path
from tritonforge.artifact.remote.transfer import fetch_blob, send_blob
from tritonforge.artifact.store import LocalStore
from tritonforge.durable import disk_errors, fault_point
from tritonforge.errors import CheckFailed, Interrupted, Place, UsageError
from tritonforge.repository.bundle import Progress
from tritonforge.repository.bundle_admit import check_platform, free_space
from tritonforge.repository.bundle_manifest import RELEASE, check_paths, release_contents
from tritonforge.repository.bundle_read import ANYONE, Trust
from tritonforge.repository.bundle_signature import HASH, MAX_SIGNATURE, PublicKey, parse_signature, sign
from tritonforge.repository.release import SCHEMA, PlatformFolder, Release, ReleaseDraft, Stored, read_release

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LATEST: Final = "latest"
_AT_ONCE: Final = 4
_DIGEST: Final = re.compile(r"[0-9a-f]{4,64}")
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push sent, or would send: counts of different files, and bytes."""

    release: str
    files: int
    size: int
    sent: int
    sent_bytes: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull fetched. ``new`` when the release was not there whole; ``signer`` signed it."""

    release: Release
    new: bool
    fetched: int
    fetched_bytes: int
    signer: PublicKey | None


def push_release(
    release: Release,
    objects: Objects,
    *,
    latest: bool = True,
    key: Ed25519PrivateKey | None = None,
    everything: bool = False,
    dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> Pushed:
    """Send what is missing there of a release; it can be pulled when the last of it has arrived.

    With ``everything`` what is there is replaced: that mends what was damaged there.

    A push that is stopped goes on where it was. ``key`` signs ``release.json``, and so all that it names.

    Raises:
        CheckFailed: the release is damaged.
        EnvironmentLacks: the store cannot be used.
    """
    text = (release.folder / RELEASE).read_bytes()
    if digest_bytes(text) != release.digest:
        raise CheckFailed(
            f"the release {release.digest[:12]} is damaged: release.json is not the one that the folder is named for",
            place=Place(release.folder),
            hint="`tritonforge build --force` reads every file of it, and replaces it from the store",
        )
    files = {path: file for path, file in release_contents(release.document, text).files.items() if path != RELEASE}
    places = {file.sha256: path for path, file in files.items()}
    entries = {file.sha256: FileEntry(file.sha256, file.size) for file in files.values()}
    missing = list(entries.values()) if everything else _missing(objects, entries.values())
    size = sum(entry.size for entry in missing)
    done = Pushed(release.digest, len(entries), sum(e.size for e in entries.values()), len(missing), size, dry_run)
    if dry_run:
        return done

    def send(entry: FileEntry, moved: Moved) -> None:
        try:
            send_blob(objects, inside(release.folder, places[entry.sha256]), entry, moved, replace=True)
        except OSError as error:
            raise CheckFailed(f"the release lacks {places[entry.sha256]}", found=str(error)) from None

    _all(missing, send, size, progress)
    folder = f"releases/{release.digest}"
    if key is not None:
        objects.write(f"{folder}/{RELEASE}.sig", sign(key, hashlib.new(HASH, text).digest()))
    fault_point("release.document.write")
    objects.write(f"{folder}/{RELEASE}", text)
    fault_point("release.document.written")
    if latest:
        platform = str(release.document["platform"]["name"])
        told = {"schema": 1, "release": release.digest, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        fault_point("release.latest.write")
        objects.write(_latest(str(release.document["name"]), platform), canonical_json(told))
        fault_point("release.latest.written")
    return done


def find_remote(objects: Objects, reference: str, name: str, platform: str) -> str:
    """The digest of a release there: by (the beginning of) itself, or ``latest`` of a repository on a platform.

    Raises:
        UsageError: there is none, or several begin so.
        CheckFailed: what says which one is the latest is damaged.
        EnvironmentLacks: the store cannot be used.
    """
    if reference == LATEST:
        data = objects.read(_latest(name, platform))
        if data is None:
            raise UsageError(
                f"no release of {name} for {platform} was pushed to {objects.address}",
                hint="`tritonforge release push` does; a release that was built under another name has a digest too",
            )
        try:
            digest = json.loads(data)["release"]
            assert isinstance(digest, str) and _DIGEST.fullmatch(digest) and len(digest) == 64
        except (ValueError, KeyError, TypeError, AssertionError):
            raise CheckFailed(
                "what says which release is the latest is damaged", found=_latest(name, platform)
            ) from None
        return digest
    if _DIGEST.fullmatch(reference) is None:
        raise UsageError("this is no digest of a release", expected="`latest`, or 4 to 64 hexadecimal digits")
    if len(reference) == 64:
        return reference
    names = [found for found in objects.names("releases") if found.startswith(reference) and len(found) == 64]
    if len(names) != 1:
        raise UsageError(
            f"{'no' if not names else 'more than one'} release in {objects.address} begins with '{reference}'",
            found=", ".join(found[:12] for found in names[:10]) or None,
        )
    return names[0]


def pull_release(
    objects: Objects,
    digest: str,
    folder: PlatformFolder,
    platform: Mapping[str, Any],
    store: LocalStore,
    *,
    trust: Trust = ANYONE,
    progress: Progress = lambda done, total: None,
) -> Pulled:
    """Have a release beside a platform's others, whole or not at all. What is current stays so.

    Only files that are not in the local store come over, and each is read against its digest; a pull that is stopped
    goes on where it was. The build lock and the store's are held.

    Raises:
        CheckFailed: the release or one of its files is not what its digest says, or is not signed as asked.
        UsageError: there is no such release, or it is for another platform.
        EnvironmentLacks: the store cannot be used, or there is no room.
    """
    text = objects.read(f"releases/{digest}/{RELEASE}")
    if text is None:
        raise UsageError(f"there is no release {digest[:12]} in {objects.address}")
    if digest_bytes(text) != digest:
        raise CheckFailed("release.json is not what its digest says", expected=digest, found=digest_bytes(text))
    signer = _signer(objects, digest, text, trust)
    draft, entries = _draft(text, digest)
    check_platform("release", draft.document["platform"], platform)
    target = Release(folder.releases / digest, draft.document)
    missing = [] if target.is_whole() else [entry for entry in entries.values() if not store.has(entry)]
    size = sum(entry.size for entry in missing)
    with disk_errors("cannot keep the release", folder.releases):
        folder.releases.mkdir(parents=True, exist_ok=True)
        free_space(folder.releases, size)

        def fetch(entry: FileEntry, moved: Moved) -> None:
            fetch_blob(objects, store, entry, moved)

        _all(missing, fetch, size, progress)
    new = folder.admit(draft, store)
    return Pulled(read_release(folder.releases / digest), new, len(missing), size, signer)


def _draft(text: bytes, digest: str) -> tuple[ReleaseDraft, dict[str, FileEntry]]:
    """A release as it is published, from a ``release.json`` that anybody may have written."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise CheckFailed(
                "the release has another format",
                expected=f"schema {SCHEMA}",
                found=repr(document["schema"])[:60],
                hint="a newer tritonforge wrote it: pull it with that one",
            )
        name, _ = document["name"], document["platform"]["name"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckFailed("release.json is no document of a release", found=str(error)[:200]) from None
    contents = release_contents(document, text)
    check_paths(RELEASE, contents.files, contents.folders)
    files = {path: FileEntry(file.sha256, file.size) for path, file in contents.files.items() if path != RELEASE}
    artifact = Artifact("release", files)
    draft = ReleaseDraft(document, {path: Stored(artifact, path) for path in files}, contents.folders)
    if draft.digest != digest:
        raise CheckFailed(f"release.json of {name} is not written as tritonforge writes it")
    return draft, {entry.sha256: entry for entry in files.values()}


def _signer(objects: Objects, digest: str, text: bytes, trust: Trust) -> PublicKey | None:
    data = objects.read(f"releases/{digest}/{RELEASE}.sig")
    if data is None:
        if trust.required or trust.keys is not None:
            raise CheckFailed("the release is not signed")
        return None
    if not trust.required and trust.keys is None:
        return None  # nobody asked, and checking needs a package
    signature = parse_signature(data[: MAX_SIGNATURE + 1])
    if not signature.holds(hashlib.new(signature.hash_name, text).digest()):
        raise CheckFailed("the signature does not fit: release.json was changed after it was made")
    if trust.keys is not None and signature.key not in trust.keys:
        raise CheckFailed(
            "the release is signed by another key",
            expected=" or ".join(key.fingerprint for key in trust.keys),
            found=signature.key.fingerprint,
        )
    return signature.key


def _missing(objects: Objects, entries: Iterable[FileEntry]) -> list[FileEntry]:
    found: list[FileEntry] = []

    def look(entry: FileEntry, moved: Moved) -> None:
        if objects.size(blob_path(entry.sha256)) != entry.size:
            found.append(entry)

    _all(list(entries), look, 0, lambda done, total: None)
    return sorted(found, key=lambda entry: entry.sha256)


def _all(items: Iterable[_Item], work: Callable[[_Item, Moved], None], total: int, progress: Progress) -> None:
    """Do the work of all items, a few at once; the first error, or an interrupt, stops the others soon."""
    guard, stopped, done = threading.Lock(), threading.Event(), 0

    def moved(count: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise Interrupted("stopped")
        with guard:
            done += count
            progress(min(done, total), total)

    def one(item: _Item) -> None:
        if not stopped.is_set():
            work(item, moved)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for future in [pool.submit(one, item) for item in items]:
                future.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _latest(name: str, platform: str) -> str:
    return f"latest/{name}/{platform}.json"
