"""Releases in object stores: only what is missing goes over, all of it is checked, and none is ever half there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from artifact.remote.conftest import folder_objects
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from s3_server import Bucket

from repository.making_bundle import FILES, PLATFORM, make_release
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.remote.address import parse_address
from tritonforge.artifact.remote.objects import Objects, open_objects
from tritonforge.artifact.remote.record import blob_path
from tritonforge.artifact.remote.transfer import REMOTE_FAULTS
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.repository.bundle_read import Trust
from tritonforge.repository.bundle_signature import PublicKey
from tritonforge.repository.release import PlatformFolder, Release
from tritonforge.repository.remote_release import Pulled, find_remote, pull_release, push_release

WEIGHTS = digest_bytes(FILES["net/1/model.onnx"])
SIZE = len(FILES["net/1/model.onnx"])


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder that plays the object store."""
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def site(tmp_path: Path) -> PlatformFolder:
    """The releases of another site."""
    return PlatformFolder(tmp_path / "site" / "build" / "local")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path / "from")


def pull(objects: Objects, site: PlatformFolder, reference: str = "latest", trust: Trust | None = None) -> Pulled:
    store = LocalStore(site.root.parents[1] / "store").open()
    digest = find_remote(objects, reference, "tiny", "local")
    return pull_release(objects, digest, site, PLATFORM, store, trust=trust or Trust())


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_release_goes_there_and_back(
    request: pytest.FixtureRequest, release: Release, site: PlatformFolder, shelf: Path, where: str
) -> None:
    objects = folder_objects(shelf)
    if where == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        objects = open_objects(parse_address(f"{bucket.url}/releases-of-us"), timeout_s=30)
    tried = push_release(release, objects, dry_run=True)
    assert (tried.sent, tried.files) == (8, 8)
    with pytest.raises(UsageError, match="no release of tiny for local was pushed"):
        pull(objects, site)
    done = push_release(release, objects)
    assert (done.sent, done.sent_bytes) == (tried.sent, tried.sent_bytes)
    again = push_release(release, objects)
    assert (again.sent, again.sent_bytes) == (0, 0)
    got = pull(objects, site)
    assert got.new
    assert got.fetched == 8
    assert contents(got.release.folder) == contents(release.folder)
    assert got.release.is_whole()
    assert site.current() is None, "nothing becomes current by a pull"
    assert {path.stat().st_mode & 0o777 for path in got.release.folder.rglob("*") if path.is_file()} == {0o444}
    once_more = pull(objects, site, release.digest[:6])
    assert (once_more.new, once_more.fetched) == (False, 0)
    assert site.make_current(got.release)
    current = site.current()
    assert current is not None
    assert current.digest == release.digest


def test_only_what_is_missing_goes_over(tmp_path: Path, release: Release, site: PlatformFolder, shelf: Path) -> None:
    objects = folder_objects(shelf)
    push_release(release, objects)
    pull(objects, site)
    newer = make_release(tmp_path / "newer", files={**FILES, "words/2/model.py": b"class TritonPythonModel: 2\n"})
    done = push_release(newer, objects)
    assert (done.sent, done.sent_bytes) == (1, len(b"class TritonPythonModel: 2\n"))
    got = pull(objects, site)
    assert (got.release.digest, got.fetched, got.fetched_bytes) == (newer.digest, 1, done.sent_bytes)
    push_release(release, objects, latest=False)
    assert find_remote(objects, "latest", "tiny", "local") == newer.digest


def test_a_beginning_that_several_have_names_none(release: Release, shelf: Path) -> None:
    objects = folder_objects(shelf)
    for digest in ("abcd" + "0" * 60, "abcd" + "1" * 60):
        objects.write(f"releases/{digest}/release.json", b"{}")
    with pytest.raises(UsageError, match="more than one release"):
        find_remote(objects, "abcd", "tiny", "local")
    with pytest.raises(UsageError, match="no release in file://"):
        find_remote(objects, "1234", "tiny", "local")
    with pytest.raises(UsageError, match="no digest of a release"):
        find_remote(objects, "../x", "tiny", "local")
    with pytest.raises(UsageError, match="there is no release 0000"):
        pull(objects, PlatformFolder(shelf / "site" / "build" / "local"), "0" * 64)


@pytest.mark.parametrize("poison", [b"", b"weights" * 999, b"weights" * 1001, b"WEIGHTS" * 1000, None])
def test_a_file_that_is_not_what_its_digest_says_is_refused(
    release: Release, site: PlatformFolder, shelf: Path, poison: bytes | None
) -> None:
    objects = folder_objects(shelf)
    push_release(release, objects)
    blob = shelf / blob_path(WEIGHTS)
    blob.chmod(0o644)
    blob.unlink() if poison is None else blob.write_bytes(poison)
    with pytest.raises(CheckFailed):
        pull(objects, site)
    assert list(site.releases.glob("*")) == []
    done = push_release(release, objects, everything=poison == b"WEIGHTS" * 1000)
    assert done.sent >= 1, "what has another size is sent again, and the rest where everything is asked for"
    assert pull(objects, site).new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(b"tiny", b"tony"), "not what its digest says"),
        (lambda text: b"", "not what its digest says"),
    ],
)
def test_a_document_that_was_changed_is_refused(
    release: Release, site: PlatformFolder, shelf: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    objects = folder_objects(shelf)
    push_release(release, objects)
    document = shelf / "releases" / release.digest / "release.json"
    document.write_bytes(change(document.read_bytes()))
    with pytest.raises(CheckFailed, match=message):
        pull(objects, site)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../../../evil", "path that is not taken"),
        ("/etc/evil", "path that is not taken"),
        ("1/model.onnx/x", "file that is also a folder"),
    ],
)
def test_a_release_that_leaves_its_folder_is_refused(
    release: Release, site: PlatformFolder, shelf: Path, path: str, message: str
) -> None:
    objects = folder_objects(shelf)
    document = json.loads((release.folder / "release.json").read_bytes())
    document["models"][1]["files"][path] = {"sha256": WEIGHTS, "size": SIZE}
    text = (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    objects.write(f"releases/{digest_bytes(text)}/release.json", text)
    with pytest.raises(CheckFailed, match=message):
        pull(objects, site, digest_bytes(text))
    assert not list(shelf.parent.rglob("evil"))


def test_a_release_for_another_platform_is_refused(tmp_path: Path, site: PlatformFolder, shelf: Path) -> None:
    objects = folder_objects(shelf)
    other = make_release(tmp_path / "other", platform={**PLATFORM, "triton": "24.05"})
    push_release(other, objects)
    with pytest.raises(UsageError, match="the release is for another platform"):
        pull(objects, site)


def test_a_latest_that_is_damaged_is_said(release: Release, site: PlatformFolder, shelf: Path) -> None:
    objects = folder_objects(shelf)
    push_release(release, objects)
    for text in (b"", b"[]", b'{"release": "../../x"}', b'{"release": 5}'):
        (shelf / "latest" / "tiny" / "local.json").write_bytes(text)
        with pytest.raises(CheckFailed, match="says which release is the latest is damaged"):
            pull(objects, site)


def test_a_release_that_is_damaged_here_is_not_sent(release: Release, shelf: Path) -> None:
    model = release.models_folder / "net" / "1" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(b"WEIGHTS" * 1000)
    with pytest.raises(CheckFailed, match="is damaged here, and is not sent"):
        push_release(release, folder_objects(shelf))
    assert not (shelf / "releases").exists()
    assert not (shelf / blob_path(WEIGHTS)).exists()


def test_who_signed_it_counts_where_it_is_asked(release: Release, site: PlatformFolder, shelf: Path) -> None:
    objects, key, other = folder_objects(shelf), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    mine, theirs = (PublicKey(item.public_key().public_bytes_raw()) for item in (key, other))
    push_release(release, objects)
    with pytest.raises(CheckFailed, match="not signed"):
        pull(objects, site, trust=Trust(required=True))
    push_release(release, objects, key=key)
    with pytest.raises(CheckFailed, match="signed by another key"):
        pull(objects, site, trust=Trust((theirs,)))
    assert pull(objects, site, trust=Trust((mine,))).signer == mine
    assert pull(objects, site).signer is None, "nobody asked"


POINTS = [name for name in REMOTE_FAULTS if not name.startswith(("remote.note", "remote.record"))]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_and_done_again(release: Release, site: PlatformFolder, shelf: Path, point: str) -> None:
    def killed_at(work: Callable[[], object]) -> None:
        child = os.fork()
        if child == 0:
            os.environ["TRITONFORGE_FAULT"] = f"{point}:kill"
            try:
                work()
            finally:
                os._exit(9)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"nothing goes through {point}"
        assert os.WTERMSIG(status) == signal.SIGKILL

    objects = folder_objects(shelf)
    if point == "remote.blob.fetched":
        push_release(release, objects)
        killed_at(lambda: pull(folder_objects(shelf), site))
        assert list(site.releases.glob("[0-9a-f]*")) == []
    else:
        killed_at(lambda: push_release(release, folder_objects(shelf)))
        if not (shelf / "latest").exists():
            with pytest.raises(UsageError):
                pull(objects, site)
        sent = sum(path.is_file() and not path.name.endswith(".tmp") for path in (shelf / "blobs").rglob("*"))
        assert push_release(release, objects).sent == 8 - sent, "what arrived is not sent again"
    assert pull(objects, site).new
    assert contents(site.releases / release.digest) == contents(release.folder)


def test_a_store_that_is_not_there_is_said(tmp_path: Path, release: Release) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    with pytest.raises(EnvironmentLacks, match="does not exist"):
        push_release(release, folder_objects(tmp_path / "none"))
