"""Two machines and one S3 bucket: what the first builds, the second fetches, and believes by its digest alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.commands import Workshop
from making_onnx import batched_add, save
from s3_server import Bucket

SPEC = """\
models:
  plus: {source: plus.onnx, max_batch_size: 4, simplify: true}
  apart: {source: apart.onnx, max_batch_size: 4}
ensembles:
  over: {inputs: [x], outputs: [y], steps: [{model: plus}]}
store: {remote: "BUCKET/team", mode: read-write, timeout_s: 30}
"""


def machine(root: Path, bucket: Bucket, spec: str = SPEC) -> Workshop:
    """A machine with nothing but the sources and the spec."""
    made = Workshop.make(root)
    save(made.folder / "plus.onnx", batched_add(1.0))
    save(made.folder / "apart.onnx", batched_add(2.0))
    made.write(spec.replace("BUCKET", bucket.url))
    return made


def release_files(workshop: Workshop) -> dict[str, bytes]:
    root = workshop.folder / "build" / "local" / "current"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def corrupted(data: bytes) -> bytes:
    """The same size, other bytes."""
    return bytes([data[0] ^ 1, *data[1:]])


@pytest.fixture
def first(tmp_path: Path, bucket: Bucket) -> Workshop:
    """A machine that has built, and sent all of it."""
    made = machine(tmp_path / "first", bucket)
    done = made.json("build")
    assert done["platforms"][0]["steps"] == {"built": 7, "cached": 0, "failed": 0, "skipped": 0}
    assert (done["store"]["sent"], done["store"]["left"], done["store"]["warnings"]) == (7, 0, [])
    assert len(bucket.keys("team/keys/")) == 7
    return made


def test_a_second_machine_builds_the_same_release_without_running_a_step(
    first: Workshop, tmp_path: Path, bucket: Bucket
) -> None:
    second = machine(tmp_path / "elsewhere" / "second", bucket)
    planned = second.json("plan")["platforms"][0]["steps"]
    assert {step["action"] for step in planned} == {"fetch"}
    assert not (second.home / "store").exists(), "a plan takes nothing in"
    done = second.json("build")
    assert done["platforms"][0]["steps"] == {"built": 0, "cached": 0, "failed": 0, "skipped": 0, "fetched": 7}
    assert second.current() == first.current()
    assert release_files(second) == release_files(first)
    assert done["store"]["fetched"] == 7
    assert done["store"]["sent"] == 0
    assert done["store"]["warnings"] == []
    again = second.json("build")
    assert again["platforms"][0]["steps"] == {"built": 0, "cached": 7, "failed": 0, "skipped": 0}
    assert again["store"]["fetched"] == 0


def test_only_what_a_release_is_made_of_comes_over(first: Workshop, tmp_path: Path, bucket: Bucket) -> None:
    second = machine(tmp_path / "second", bucket)
    done = second.json("build")
    imported = next(node for node in done["platforms"][0]["nodes"] if node["id"] == "plus/import-onnx")
    manifest = json.loads(
        (second.home / "store" / "artifacts" / imported["artifact"][:2] / f"{imported['artifact']}.json").read_bytes()
    )
    (entry,) = manifest["files"].values()
    assert not (second.home / "store" / "blobs" / entry["sha256"][:2] / entry["sha256"]).exists()
    served = {item["sha256"] for model in second.published().values() for item in model["files"].values()}
    assert entry["sha256"] not in served
    # A step that reads it, and that nobody ran, has it fetched; its own step is not run.
    second.write(SPEC.replace("BUCKET", bucket.url).replace("simplify: true", "simplify: true, golden: {seed: 5}"))
    done = second.json("build")
    ran = {node["id"]: node["status"] for node in done["platforms"][0]["nodes"] if node["status"] != "cached"}
    assert ran == {"plus/golden": "built", "plus/parity": "built"}
    assert (second.home / "store" / "blobs" / entry["sha256"][:2] / entry["sha256"]).exists()


def test_a_poisoned_file_is_refused_by_its_digest_and_its_step_runs_here(
    first: Workshop, tmp_path: Path, bucket: Bucket
) -> None:
    entry = first.published()["apart"]["files"]["1/model.onnx"]
    blob = f"team/blobs/{entry['sha256'][:2]}/{entry['sha256']}"
    good = bucket.get(blob)
    bucket.put(blob, corrupted(good))
    second = machine(tmp_path / "second", bucket)
    done = second.json("build")
    steps = {node["id"]: node["status"] for node in done["platforms"][0]["nodes"]}
    assert {name for name, status in steps.items() if status == "built"} == {"apart/import-onnx"}
    assert {name for name, status in steps.items() if status == "fetched"} == steps.keys() - {"apart/import-onnx"}
    assert release_files(second) == release_files(first)
    assert done["store"]["refused"] == ["apart/import-onnx"]
    (warning,) = done["store"]["warnings"]
    assert "apart/import-onnx is refused, and runs here: its file 'model.onnx': the bytes are not what" in warning
    assert bucket.get(blob) == good, "who may write mends what was refused"
    third = machine(tmp_path / "third", bucket)
    assert third.json("build")["platforms"][0]["steps"]["fetched"] == 7


@pytest.mark.parametrize("what", ["short", "long", "gone", "empty"])
def test_an_object_that_is_not_whole_is_refused(first: Workshop, tmp_path: Path, bucket: Bucket, what: str) -> None:
    entry = first.published()["apart"]["files"]["1/model.onnx"]
    blob = f"team/blobs/{entry['sha256'][:2]}/{entry['sha256']}"
    good = bucket.get(blob)
    if what == "gone":
        bucket.delete(blob)
    else:
        bucket.put(blob, {"short": good[:-1], "long": good + b"x", "empty": b""}[what])
    second = machine(tmp_path / "second", bucket, SPEC.replace("read-write", "read"))
    done = second.json("build")
    assert done["store"]["refused"] == ["apart/import-onnx"]
    assert done["platforms"][0]["steps"]["built"] == 1
    assert second.current() == first.current()


def test_nothing_that_is_sent_tells_where_it_was_made(
    first: Workshop, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    for key in bucket.keys():
        data = bucket.get(key)
        for private in (str(tmp_path), str(Path.home()), socket.gethostname(), "a-secret-of-tests"):
            assert private.encode() not in data, f"{key} has {private} in it"
