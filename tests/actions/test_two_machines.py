"""Two machines and one S3 bucket: what the first builds, the second fetches, and believes by its digest alone."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import remote_faults
from cli.commands import PROGRAM, Workshop
from making_onnx import batched_add, save, with_dead_weight
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
    save(made.folder / "plus.onnx", with_dead_weight())
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
    assert len(bucket.names("team/keys/")) == 7
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
    # And an entry that somebody poisons is refused by its digest.
    entry = first.published()["apart"]["files"]["1/model.onnx"]
    blob = f"team/blobs/{entry['sha256'][:2]}/{entry['sha256']}"
    bucket.put(blob, corrupted(bucket.get(blob)))
    third = machine(tmp_path / "third", bucket, SPEC.replace("read-write", "read"))
    done = third.json("build")
    statuses = {node["id"]: node["status"] for node in done["platforms"][0]["nodes"]}
    assert statuses == {**dict.fromkeys(statuses, "fetched"), "apart/import-onnx": "built"}
    assert done["store"]["refused"] == ["apart/import-onnx"]
    assert "the bytes are not what their digest says" in done["store"]["warnings"][0]
    assert release_files(third) == release_files(first)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_nothing_that_is_sent_tells_where_it_was_made(first: Workshop, tmp_path: Path, bucket: Bucket) -> None:
    for name in bucket.names():
        data = bucket.get(name)
        for private in (str(tmp_path), str(Path.home()), socket.gethostname(), "a-secret-of-tests"):
            assert private.encode() not in data, f"{name} has {private} in it"


def broken(root: Path, bucket: Bucket, endpoint: str, timeout_s: float = 30, bucket_name: str = "") -> Workshop:
    """A machine that reaches the team's store by another way."""
    text = SPEC.replace("timeout_s: 30", f"timeout_s: {timeout_s}, options: {{endpoint_url: '{endpoint}'}}")
    return machine(root, bucket, text.replace("BUCKET", bucket_name) if bucket_name else text)


def test_a_server_that_never_answers_costs_a_build_its_timeout_and_no_more(tmp_path: Path, bucket: Bucket) -> None:
    plain = machine(tmp_path / "plain", bucket, SPEC.partition("store:")[0])
    since = time.monotonic()
    plain.build()
    without = time.monotonic() - since
    with remote_faults.silent_server() as endpoint:
        second = broken(tmp_path / "second", bucket, endpoint, timeout_s=2)
        since = time.monotonic()
        done = second.json("build")
        took = time.monotonic() - since
    assert done["platforms"][0]["steps"]["built"] == 7
    (warning,) = done["store"]["warnings"]
    assert "left alone for the rest of this build" in warning
    assert took < without * 1.5 + 2 + 4, "the timeout, and what it takes to load the libraries"
    assert second.current() == plain.current()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nobody", "no bucket", "slow", "falls silent"])
def test_a_store_that_is_no_use_breaks_nothing(first: Workshop, tmp_path: Path, bucket: Bucket, how: str) -> None:
    delay, after = (1.2 if how == "slow" else 0.0), (3 if how == "falls silent" else None)
    with remote_faults.in_front_of(bucket.endpoint, delay_s=delay, silent_after=after) as (endpoint, _):
        address = remote_faults.closed_port() if how == "nobody" else endpoint
        name = "s3://no-such-bucket" if how == "no bucket" else ""
        second = broken(tmp_path / "second", bucket, address, timeout_s=3, bucket_name=name)
        since = time.monotonic()
        done = second.json("build")
        took = time.monotonic() - since
    assert second.current() == first.current()
    assert done["platforms"][0]["failures"] == []
    (warning,) = done["store"]["warnings"]
    assert "left alone for the rest of this build" in warning
    assert "a-secret-of-tests" not in str(done)
    assert took < 60


@pytest.mark.slow
def test_who_may_only_read_reads(first: Workshop, tmp_path: Path, bucket: Bucket) -> None:
    with remote_faults.in_front_of(bucket.endpoint, refuse=("PUT", "POST")) as (endpoint, _):
        second = broken(tmp_path / "second", bucket, endpoint)
        save(second.folder / "apart.onnx", batched_add(5.0))
        done = second.json("build")
    steps = done["platforms"][0]["steps"]
    assert (steps["fetched"], steps["built"]) == (4, 3)
    (warning,) = done["store"]["warnings"]
    assert "refuses to" in warning
    assert "what is built here stays to be sent by the next build" in warning
    assert (done["store"]["sent"], done["store"]["left"]) == (0, 3)
    second.write(SPEC.replace("BUCKET", bucket.url))
    done = second.json("build")
    assert (done["store"]["sent"], done["store"]["left"]) == (3, 0)


@pytest.mark.slow
def test_who_may_not_read_builds(first: Workshop, tmp_path: Path, bucket: Bucket) -> None:
    with remote_faults.in_front_of(bucket.endpoint, refuse=("GET", "HEAD", "PUT")) as (endpoint, _):
        second = broken(tmp_path / "second", bucket, endpoint)
        done = second.json("build")
    assert done["platforms"][0]["steps"]["built"] == 7
    (warning,) = done["store"]["warnings"]
    assert "refuses to read" in warning
    assert "s3:ListBucket" in warning


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sending_can_be_interrupted_and_goes_on_with_the_next_build(
    tmp_path: Path, bucket: Bucket, number: int
) -> None:
    with remote_faults.in_front_of(bucket.endpoint, delay_s=1.0) as (endpoint, _):
        made = broken(tmp_path / "first", bucket, endpoint, timeout_s=60)
        running = subprocess.Popen(
            [str(PROGRAM), "build"],
            cwd=made.folder,
            env=made.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 90
        while made.current() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        running.send_signal(number)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 5, err
    assert "all is built and current" in err
    assert made.current() is not None
    made.write(SPEC.replace("BUCKET", bucket.url))
    done = made.json("build")
    assert done["store"]["sent"] > 0
    assert done["store"]["left"] == 0
    assert len(bucket.names("team/keys/")) == 7


def test_the_environment_names_another_store_or_none(forge: Workshop, tmp_path: Path) -> None:
    made = forge
    made.write("models: {apart: {source: apart.onnx}}\nstore: {remote: 'file:///nowhere', mode: read-write}\n")
    team = tmp_path / "team"
    team.mkdir()
    environment = {**made.environment, "TRITONFORGE_REMOTE_STORE": f"file://{team}"}

    def build(environment: dict[str, str], *words: str) -> dict[str, object]:
        ran = subprocess.run(
            [str(PROGRAM), "build", "--json", *words], cwd=made.folder, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        value: dict[str, object] = json.loads(ran.stdout)
        return value

    assert build(environment, "--force")["store"]["sent"] == 3  # type: ignore[index]
    assert (team / "keys").is_dir()
    assert "store" not in build({**environment, "TRITONFORGE_REMOTE_STORE": "off"}, "--force")
