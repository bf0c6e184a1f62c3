"""A record that anybody may have written is either what was written, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.artifact.artifact import Artifact, FileEntry
from tritonforge.artifact.remote.record import read_record, write_record
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import KeyRecord
from tritonforge.errors import CheckFailed

KEY = "ab" * 32
SIGNATURE = Signature((Tensor("x", "FP32", ("N", 4)),), (Tensor("y", "FP32", ("N", 4)),), True)
ARTIFACT = Artifact("onnx", {"model.onnx": FileEntry("cd" * 32, 7), "a/b.bin": FileEntry("ef" * 32, 0)}, SIGNATURE)
RECORD = KeyRecord(ARTIFACT.digest, {"processor": "x86_64 avx2"}, {"seconds": 1.5, "step": "export"})


def changed(change: Callable[[dict[str, Any]], object], signing_key: bytes | None = None) -> bytes:
    value = json.loads(write_record(KEY, RECORD, ARTIFACT, signing_key))
    change(value)
    return json.dumps(value).encode()


def with_file(path: Any, sha256: Any = "cd" * 32, size: Any = 7) -> bytes:
    """A record that is right in itself, and names a file that no artifact has."""

    def change(value: dict[str, Any]) -> None:
        value["manifest"]["files"] = {path: {"sha256": sha256, "size": size}}
        try:
            value["artifact"] = Artifact.from_json(value["manifest"]).digest
        except (TypeError, AttributeError):
            value["artifact"] = "x"

    return changed(change)


@pytest.mark.parametrize("signing_key", [None, b"the team's"])
def test_a_record_survives_the_way(signing_key: bytes | None) -> None:
    found = read_record(write_record(KEY, RECORD, ARTIFACT, signing_key), KEY, RECORD.facets, signing_key)
    assert (found.key, found.record, found.artifact.to_json()) == (KEY, RECORD, ARTIFACT.to_json())


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", ".", "a//b", "./a", "a\\b", "a\nb", "x" * 300, ""]
)
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(CheckFailed):
        read_record(with_file(path), KEY, RECORD.facets)


@pytest.mark.parametrize("sha256", ["../../../../etc/passwd", "CD" * 32, "cd" * 31, "cd" * 32 + "\n", 7, None, ["x"]])
def test_a_digest_that_is_none_is_refused(sha256: Any) -> None:
    with pytest.raises(CheckFailed, match="no digest"):
        read_record(with_file("model.onnx", sha256), KEY, RECORD.facets)


@pytest.mark.parametrize("size", [-1, 1.5, "7", None, True, 1 << 60])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(CheckFailed, match="no size"):
        read_record(with_file("model.onnx", size=size), KEY, RECORD.facets)


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    both = Artifact("onnx", {"a": FileEntry("cd" * 32, 1), "a/b": FileEntry("cd" * 32, 1)})
    with pytest.raises(CheckFailed, match="also a folder"):
        read_record(write_record(KEY, KeyRecord(both.digest), both), KEY, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(schema=2), "another format"),
        (lambda value: value.update(key="00" * 32), "another key"),
        (lambda value: value.update(facets={}), "other hardware"),
        (lambda value: value.update(artifact="00" * 32), "manifest is another one"),
        (lambda value: value["manifest"]["metadata"].update(file="evil"), "manifest is another one"),
        (lambda value: value["manifest"].pop("files"), "damaged"),
        (lambda value: value.update(provenance=[]), "how it was made"),
        (lambda value: value.update(manifest=None), "damaged"),
        (lambda value: value["provenance"].update(seconds=float("nan")), "damaged"),
        (lambda value: value["provenance"].update(seconds=float("inf")), "damaged"),
        (lambda value: value["provenance"].update(machine="\ud800"), "damaged"),
    ],
)
def test_a_record_that_was_changed_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        read_record(changed(change), KEY, RECORD.facets)


def test_a_team_with_a_key_believes_nobody_else() -> None:
    mine, other = b"the team's", b"somebody's"
    with pytest.raises(CheckFailed, match="not signed"):
        read_record(write_record(KEY, RECORD, ARTIFACT), KEY, RECORD.facets, mine)
    with pytest.raises(CheckFailed, match="not by the team's key"):
        read_record(write_record(KEY, RECORD, ARTIFACT, other), KEY, RECORD.facets, mine)
    with pytest.raises(CheckFailed, match="not by the team's key"):
        read_record(changed(lambda value: value["provenance"].update(seconds=9), mine), KEY, RECORD.facets, mine)
    # Who has no key of the team's takes signed records by their digests alone.
    assert read_record(write_record(KEY, RECORD, ARTIFACT, other), KEY, RECORD.facets).record == RECORD


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CheckFailed):
        read_record(data, KEY, {})


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_only_how_it_was_made(at: int, flip: int) -> None:
    data = bytearray(write_record(KEY, RECORD, ARTIFACT))
    data[at % len(data)] ^= flip
    try:
        found = read_record(bytes(data), KEY, RECORD.facets)
    except CheckFailed:
        return
    assert found.artifact.to_json() == ARTIFACT.to_json()
    assert found.record.artifact == RECORD.artifact
