"""The init container's program: a release comes whole and checked from an object store, or not at all."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from helm.chart import CHART

FETCH = CHART / "files" / "fetch.py"


class Store(ThreadingHTTPServer):
    """Files over HTTP, with ranges, that can misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers: list[dict[str, str]] = []
        self.cut: dict[str, int] = {}
        """Path → how many bytes of the next answer get through."""
        self.busy: dict[str, int] = {}
        """Path → how many more requests are answered 503."""
        self.redirect: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.headers.append(dict(self.headers))
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect + path)
            self.end_headers()
            return None
        if self.server.busy.get(path, 0):
            self.server.busy[path] -= 1
            return self.send_error(503)
        if path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[path]
        start = int(re.findall(r"\d+", self.headers["Range"])[0]) if "Range" in self.headers else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut.pop(path, len(content))])
        self.close_connection = True
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store() -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch", FETCH)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


BIG = bytes(range(256)) * 8192
FILES = {"net/config.pbtxt": b'name: "net"\n', "net/1/model.onnx": BIG, "net/1/empty": b""}


def publish(store: Store, files: dict[str, bytes] = FILES) -> str:
    """Put a release below /r; its digest."""
    entries: dict[str, dict[str, object]] = {}
    for path, content in files.items():
        folder, _, rest = path.partition("/")
        entry = entries.setdefault(folder, {"folder": folder, "version": 1, "files": {}})
        entry["files"][rest] = {"sha256": sha256(content), "size": len(content)}  # type: ignore[index]
        store.files[f"/r/models/{path}"] = content
    entries["both"] = {"folder": "both", "version": 3, "files": {}}
    document = json.dumps({"schema": 1, "models": list(entries.values())}).encode()
    store.files["/r/release.json"] = document
    return sha256(document)


def fetch(url: str, to: Path, digest: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FETCH), f"--url={url}", f"--to={to}", f"--sha256={digest}", *words],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "TRITONFORGE_FETCH_PAUSE": "0.001", "PYTHONDONTWRITEBYTECODE": "1", **env},
        timeout=60,
    )


def brought(folder: Path) -> dict[str, bytes]:
    models = folder / "models"
    return {str(file.relative_to(models)): file.read_bytes() for file in models.rglob("*") if file.is_file()}


def test_a_release_comes_with_the_empty_folder_of_its_ensemble(store: Store, tmp_path: Path) -> None:
    done = fetch(f"{store.url}/r", tmp_path, publish(store))
    assert done.returncode == 0, done.stderr
    assert brought(tmp_path) == FILES
    assert (tmp_path / "models" / "both" / "3").is_dir()
    assert "3 files are there and checked; 2.1 MB travelled" in done.stdout


def test_what_is_there_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    assert fetch(f"{store.url}/r", tmp_path, digest).returncode == 0
    store.asked.clear()
    assert "all 3 files are there" in fetch(f"{store.url}/r", tmp_path, digest).stdout
    assert [path for path, _ in store.asked] == ["/r/release.json"]


def test_a_broken_connection_is_continued_where_it_broke(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    store.cut["/r/models/net/1/model.onnx"] = 1_500_000
    assert fetch(f"{store.url}/r", tmp_path, digest).returncode == 0
    ranges = [asked for path, asked in store.asked if path.endswith("model.onnx")]
    assert ranges[0] is None
    assert ranges[1:] and all(int(str(item)[6:-1]) >= 1_000_000 for item in ranges[1:])
    assert brought(tmp_path) == FILES


def test_a_killed_fetch_is_continued_by_the_next(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    store.cut["/r/models/net/1/model.onnx"] = 1_500_000
    store.busy["/r/models/net/1/model.onnx"] = 0
    first = fetch(f"{store.url}/r", tmp_path, digest)
    assert first.returncode == 0
    # As if the container had been killed in the middle: half of the file stands where fetching continues.
    partial = next((tmp_path / ".partial").parent.glob(".partial"))
    (tmp_path / ".complete").unlink()
    (tmp_path / "models" / "net" / "1" / "model.onnx").unlink()
    name = sha256(b"models/net/1/model.onnx")[:16] + "-" + sha256(BIG)
    (partial / name).write_bytes(BIG[:1_000_000])
    store.asked.clear()
    assert fetch(f"{store.url}/r", tmp_path, digest).returncode == 0
    assert ("/r/models/net/1/model.onnx", "bytes=1000000-") in store.asked
    assert len(store.asked) == 2, "the other files were there"
    assert brought(tmp_path) == FILES


def test_a_store_that_is_busy_is_waited_for(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    store.busy = {"/r/release.json": 2, "/r/models/net/config.pbtxt": 3}
    assert fetch(f"{store.url}/r", tmp_path, digest).returncode == 0
    assert brought(tmp_path) == FILES


def test_a_store_that_stays_busy_is_an_error(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    store.busy = {"/r/models/net/config.pbtxt": 1000}
    done = fetch(f"{store.url}/r", tmp_path, digest)
    assert done.returncode == 1
    assert "models/net/config.pbtxt: the store answered 503, 8 times in a row" in done.stderr
    assert not (tmp_path / ".complete").exists()


def test_a_changed_file_is_refused(store: Store, tmp_path: Path) -> None:
    digest = publish(store)
    store.files["/r/models/net/1/model.onnx"] = BIG[:-1] + b"X"
    done = fetch(f"{store.url}/r", tmp_path, digest)
    assert done.returncode == 1
    assert "models/net/1/model.onnx is not what the release names" in done.stderr
    assert "net/1/model.onnx" not in brought(tmp_path)
    assert not (tmp_path / ".complete").exists()


def test_another_release_under_that_address_is_refused(store: Store, tmp_path: Path) -> None:
    publish(store)
    done = fetch(f"{store.url}/r", tmp_path, "0" * 64)
    assert done.returncode == 1
    assert "release.json is not what was asked for" in done.stderr
    assert not (tmp_path / "models").exists()


def test_what_is_not_there_is_an_error_at_once(store: Store, tmp_path: Path) -> None:
    done = fetch(f"{store.url}/nothing", tmp_path, "0" * 64)
    assert done.returncode == 1
    assert "release.json: the store answered 404" in done.stderr
    assert len(store.asked) == 1


@pytest.mark.parametrize("path", ["../../outside", "net/../../../outside", "net//x", "net/./x"])
def test_a_path_that_leaves_its_folder_is_refused(store: Store, tmp_path: Path, path: str) -> None:
    folder, _, rest = path.partition("/")
    entry = {"folder": folder, "version": 1, "files": {rest: {"sha256": sha256(b"x"), "size": 1}}}
    document = json.dumps({"models": [entry]}).encode()
    store.files["/r/release.json"] = document
    done = fetch(f"{store.url}/r", tmp_path / "to", sha256(document))
    assert done.returncode == 1
    assert "a path leaves its folder" in done.stderr
    assert not (tmp_path / "outside").exists()


def test_a_plain_repository_is_checked_by_a_file_of_checksums(store: Store, tmp_path: Path) -> None:
    lines = "".join(f"{sha256(content)}  ./{path}\n" for path, content in FILES.items()).encode()
    store.files |= {f"/r/{path}": content for path, content in FILES.items()} | {"/r/SHA256SUMS": lines}
    done = fetch(f"{store.url}/r", tmp_path, sha256(lines), "--checksums=SHA256SUMS")
    assert done.returncode == 0, done.stderr
    assert brought(tmp_path) == FILES


def test_a_token_goes_over_https_only_and_to_no_other_host(store: Store, tmp_path: Path, module: ModuleType) -> None:
    done = fetch(f"{store.url}/r", tmp_path, publish(store), BEARER_TOKEN="hidden-token")
    assert done.returncode == 1
    assert "BEARER_TOKEN is sent over https only" in done.stderr
    assert store.asked == []

    other = Store()
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    digest = publish(other)
    store.redirect = other.url
    signed = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "hidden-key"}
    done = fetch("s3://r", tmp_path, digest, f"--endpoint={store.url}", **signed)
    other.shutdown()
    assert done.returncode == 0, done.stderr
    assert "Credential=someone/" in store.headers[0]["Authorization"]
    assert all("Authorization" not in headers for headers in other.headers)
    assert "hidden" not in done.stdout + done.stderr


def test_requests_are_signed_as_amazon_shows(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # The example "GET Bucket Lifecycle" of AWS's documentation of Signature Version 4 for S3.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    when = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
    signer = module.Store("s3://examplebucket", "", "us-east-1")
    headers = signer.signature("https://examplebucket.s3.amazonaws.com/?lifecycle=", when)
    expected = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    assert headers["Authorization"].endswith(f"Signature={expected}")


@pytest.mark.parametrize(
    ("url", "endpoint", "expected"),
    [
        ("s3://models/a", "", "https://models.s3.eu-west-1.amazonaws.com/a/release.json"),
        ("s3://my.models/a", "", "https://s3.eu-west-1.amazonaws.com/my.models/a/release.json"),
        ("s3://models/a", "https://minio.example:9000/", "https://minio.example:9000/models/a/release.json"),
        ("https://x.example/a/", "", "https://x.example/a/release.json?sig=1"),
    ],
)
def test_addresses(module: ModuleType, monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, expected: str) -> None:
    monkeypatch.setenv("URL_QUERY", "?sig=1" if url.startswith("https") else "")
    assert module.Store(url, endpoint, "eu-west-1").request("release.json", 0).full_url == expected
