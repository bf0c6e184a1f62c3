"""What a remote store says under a key: a record that is checked before any of it is believed.

A record names every file by digest, so that no byte can be another one. Who can write records can still name other
files: with a signing key (HMAC-SHA256, shared by all who may write), only records of its holders count.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.digest import canonical_json
from tritonforge.artifact.store import KeyRecord
from tritonforge.errors import CheckFailed

SCHEMA: Final = 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MAX_PATH: Final = 1024
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class RemoteRecord:
    """A key's record with the manifest of its artifact."""

    key: str
    record: KeyRecord
    artifact: Artifact


def record_path(key: str) -> str:
    """Where the record of a key stands."""
    return f"keys/{key[:2]}/{key}.json"


def blob_path(sha256: str) -> str:
    """Where the bytes of a file stand."""
    return f"blobs/{sha256[:2]}/{sha256}"


def write_record(key: str, record: KeyRecord, artifact: Artifact, signing_key: bytes | None = None) -> bytes:
    """A record's bytes, signed where there is a key to sign with."""
    body = {
        "schema": SCHEMA,
        "key": key,
        "artifact": record.artifact,
        "facets": dict(record.facets),
        "provenance": dict(record.provenance),
        "manifest": artifact.to_json(),
    }
    signature = {} if signing_key is None else {"hmac_sha256": _signature(body, signing_key)}
    return canonical_json({**body, **signature})


def read_record(data: bytes, key: str, facets: Mapping[str, str], signing_key: bytes | None = None) -> RemoteRecord:
    """The record from its bytes. ``facets`` are those of this machine that the step's result is tied to.

    Raises:
        CheckFailed: it is damaged, of another key or other hardware, names files that no artifact has, or was not
            signed with ``signing_key``.
    """
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise CheckFailed("it is no record", found=type(value).__name__)
        canonical_json(value)  # what is taken in is written again: no NaN, and no text that is not UTF-8
        if value.get("schema") != SCHEMA:
            raise CheckFailed("it has another format", expected=f"schema {SCHEMA}", found=_short(value.get("schema")))
        if signing_key is not None:
            _check_signature(value, signing_key)
        if value["key"] != key:
            raise CheckFailed("it is the record of another key", expected=key, found=_short(value["key"]))
        if value["facets"] != dict(facets):
            raise CheckFailed(
                "it was made on other hardware", expected=_short(dict(facets)), found=_short(value["facets"])
            )
        if not isinstance(value["provenance"], dict):
            raise CheckFailed("it does not say how it was made")
        artifact = checked_artifact(value["manifest"])
        if artifact.digest != value["artifact"]:
            raise CheckFailed("its manifest is another one", expected=_short(value["artifact"]), found=artifact.digest)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckFailed("it is damaged", found=f"{type(error).__name__}: {error}"[:200]) from None
    return RemoteRecord(key, KeyRecord(artifact.digest, value["facets"], value["provenance"]), artifact)


def checked_artifact(manifest: Any) -> Artifact:
    """An artifact from a manifest that anybody may have written.

    Raises:
        CheckFailed: a path leaves its folder, or is also a folder; a digest or a size is none.
        ValueError, KeyError, TypeError, AttributeError, IndexError: it is no manifest.
    """
    artifact = Artifact.from_json(manifest)
    for path, entry in artifact.files.items():
        if not isinstance(entry.sha256, str) or _SHA256.fullmatch(entry.sha256) is None:
            raise CheckFailed("it names a file by what is no digest", found=_short(entry.sha256))
        if isinstance(entry.size, bool) or not isinstance(entry.size, int) or not 0 <= entry.size < 1 << 50:
            raise CheckFailed("it names a file of no size", found=_short(entry.size))
        reason = _unsafe(path)
        if reason is not None:
            raise CheckFailed("it names a path that no artifact has", expected=reason, found=_short(path))
        for above in PurePosixPath(path).parents:
            if above.as_posix() in artifact.files:
                raise CheckFailed("it names a file that is also a folder", found=_short(above.as_posix()))
    return artifact


def _unsafe(path: str) -> str | None:
    pure = PurePosixPath(path)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        return "a path inside its folder"
    if pure.as_posix() != path or not path.isprintable() or "\\" in path:
        return "a path in its plain form"
    if len(path.encode()) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in pure.parts):
        return "a shorter path"
    return None


def _check_signature(value: Mapping[str, Any], signing_key: bytes) -> None:
    said = value.get("hmac_sha256")
    if said is None:
        raise CheckFailed("it is not signed", expected="a record signed with the team's key")
    body = {name: item for name, item in value.items() if name != "hmac_sha256"}
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), _signature(body, signing_key).encode()):
        raise CheckFailed("its signature is not by the team's key: it was changed, or another key made it")


def _signature(body: Mapping[str, Any], signing_key: bytes) -> str:
    return hmac.new(signing_key, b"tritonforge-record\0" + canonical_json(body), hashlib.sha256).hexdigest()


def _short(value: object) -> str:
    return repr(value)[:100]
