"""Files by digest, to and from a remote store: each is checked before it counts, and none goes over twice."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from tritonforge.artifact.artifact import FileEntry
from tritonforge.artifact.remote.objects import Moved, Objects
from tritonforge.artifact.remote.record import blob_path
from tritonforge.artifact.store import LocalStore
from tritonforge.durable import fault_point
from tritonforge.errors import CheckFailed

REMOTE_FAULTS: Final[tuple[str, ...]] = (
    "remote.note.rename",
    "remote.blob.send",
    "remote.blob.sent",
    "remote.record.write",
    "remote.record.written",
    "remote.blob.fetched",
    "release.document.write",
    "release.document.written",
    "release.latest.write",
    "release.latest.written",
)
"""The durable steps of pushing and pulling, for ``TRITONFORGE_FAULT`` (see :mod:`tritonforge.durable`)."""


def fetch_blob(objects: Objects, store: LocalStore, entry: FileEntry, moved: Moved = lambda count: None) -> bool:
    """Have the bytes of ``entry`` in the local store; false where they were there already.

    Raises:
        CheckFailed: the remote store has none, or others.
        EnvironmentLacks: it cannot be used.
        OSError: the local store cannot be written.
    """
    if store.has(entry):
        return False
    digest = hashlib.sha256()
    with store.staging() as folder:
        staged = folder / entry.sha256
        with staged.open("xb") as stream:

            def take(piece: bytes) -> None:
                digest.update(piece)
                stream.write(piece)
                moved(len(piece))

            count = 0 if entry.size == 0 else objects.download(blob_path(entry.sha256), entry.size, take)
        if count is None:
            raise CheckFailed("a file is not there", expected=blob_path(entry.sha256))
        if count != entry.size:
            raise CheckFailed(
                f"the bytes of {entry.sha256[:12]} are not all there, or too many",
                expected=f"{entry.size} bytes",
                found=f"{count}" if count <= entry.size else f"more than {entry.size}",
            )
        if digest.hexdigest() != entry.sha256:
            raise CheckFailed(
                "the bytes are not what their digest says", expected=entry.sha256, found=digest.hexdigest()
            )
        store.receive(staged, entry)
    fault_point("remote.blob.fetched")
    return True


def send_blob(
    objects: Objects, file: Path, entry: FileEntry, moved: Moved = lambda count: None, *, replace: bool = False
) -> bool:
    """Have a file's bytes in the remote store; false where they were there already, by name and size.

    With ``replace`` they are sent regardless: what was there turned out to be damaged.

    Raises:
        CheckFailed: the file is damaged.
        EnvironmentLacks: the store cannot be used.
        OSError: the file cannot be read.
    """
    path = blob_path(entry.sha256)
    if not replace and objects.size(path) == entry.size:
        return False
    fault_point("remote.blob.send")
    objects.send(path, file, entry.sha256, moved)
    fault_point("remote.blob.sent")
    return True
