"""``release push`` and ``release pull``, from one site to another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import remote_faults
from s3_server import Bucket

from cli.commands import PROGRAM, Workshop, errors_said

SPEC = "models:\n  good: {source: good.onnx, max_batch_size: 4}\n"


@pytest.fixture
def shelf(tmp_path: Path) -> str:
    """The address of a folder that plays the object store."""
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    folder = tmp_path / "shelf"
    folder.mkdir()
    return f"file://{folder}"


@pytest.fixture
def site(tmp_path: Path) -> Workshop:
    """Another site: the spec is there, and no source of any model."""
    made = Workshop.make(tmp_path / "site")
    made.write(SPEC)
    return made


def test_a_release_goes_from_one_site_to_another(built: Workshop, site: Workshop, shelf: str) -> None:
    told = built.json("release", "push", shelf, "--dry-run")
    assert told["dry_run"]
    assert not (Path(shelf.removeprefix("file://")) / "blobs").exists()
    sent = built.json("release", "push", shelf)
    assert (sent["release"], sent["sent"], sent["sent_bytes"]) == (built.current(), told["sent"], told["sent_bytes"])
    assert built.json("release", "push", shelf)["sent"] == 0
    got = site.json("release", "pull", shelf, "latest")
    assert (got["release"], got["new"], got["fetched"]) == (built.current(), True, sent["sent"])
    assert site.current() is None
    assert site.json("release", "pull", shelf, str(built.current())[:8], "--current")["fetched"] == 0
    assert site.current() == built.current()
    assert "here already" in site.run("release", "pull", shelf, "latest").out
    assert site.leftovers() == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("push", "nowhere"), 2, "no address of a remote store"),
        (("push", "s3://me:hunter2@b/x"), 2, "no credentials"),
        (("push", "SHELF", "0000"), 2, "no release begins with '0000'"),
        (("push", "file:///no/such/folder"), 3, "does not exist"),
        (("pull", "SHELF", "latest"), 2, "no release of tiny for local was pushed"),
        (("pull", "SHELF", "0000"), 2, "no release in"),
        (("pull", "SHELF", "x"), 2, "no digest of a release"),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    built: Workshop, shelf: str, words: tuple[str, ...], code: int, message: str
) -> None:
    done = built.run("release", *(word.replace("SHELF", shelf) for word in words))
    assert done.code == code, done.err
    assert errors_said(done.err) == 1
    assert message in done.err
    assert "hunter2" not in done.err + done.out


@pytest.mark.slow
def test_a_server_that_never_answers_is_said_in_time(built: Workshop, bucket: Bucket) -> None:
    with remote_faults.silent_server() as endpoint:
        built.write(SPEC + f"store: {{remote: 's3://b/x', timeout_s: 1, options: {{endpoint_url: '{endpoint}'}}}}\n")
        done = built.run("release", "push", "s3://other/releases", timeout=60)
    assert done.code == 3
    assert "did not answer within 1 s" in done.err


@pytest.mark.slow
def test_a_push_that_is_interrupted_goes_on(built: Workshop, site: Workshop, bucket: Bucket) -> None:
    with remote_faults.in_front_of(bucket.endpoint, delay_s=0.7) as (endpoint, seen):
        environment = {**built.environment, "AWS_ENDPOINT_URL": endpoint}
        running = subprocess.Popen(
            [str(PROGRAM), "release", "push", f"{bucket.url}/r"],
            cwd=built.folder,
            env=environment,
            stderr=subprocess.PIPE,
        )
        while not any(line.startswith("PUT") for line in seen):
            assert running.poll() is None
        running.terminate()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 5, err
    assert not any(name.startswith("r/latest") for name in bucket.names())
    there = len(bucket.names("r/blobs/"))
    sent = built.json("release", "push", f"{bucket.url}/r")
    assert sent["sent"] == sent["files"] - there
    assert site.json("release", "pull", f"{bucket.url}/r", "latest")["new"]
