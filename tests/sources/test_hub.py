from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.digest import FileDigests
from tritonforge.errors import Place, SpecError
from tritonforge.sources import hub
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.lock import Lock
from tritonforge.spec.source import SourceRef

pytest.importorskip("huggingface_hub")

PLACE = Place(Path("forge.yaml"), 3, "models.net.source")
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle", "README.md": b"x"}
ASK = (
    "import sys, json; from tritonforge.sources import hub; from tritonforge.errors import ForgeError, Place\n"
    "try:\n"
    "    files, commit = hub.fetched(sys.argv[1], sys.argv[2] or None, Place())\n"
    "    print(json.dumps([sorted(files), commit]))\n"
    "except ForgeError as error:\n"
    "    print(json.dumps([type(error).__name__, error.message]))\n"
)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as fetching a model takes: `org/net`, whose `main` is ``commit``."""

    commit = "a" * 40

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = f"/org/net/resolve/{self.commit}/"
        if path.startswith(f"/api/models/org/net/tree/{self.commit}"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode())
        elif path in ("/api/models/org/net", "/api/models/org/net/revision/main"):
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"id": "org/net", "sha": self.commit, "siblings": siblings}).encode())
        elif path.startswith("/api/models/org/net/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path == "/api/models/org/gated":
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith(files) and path.removeprefix(files) in FILES:
            data = FILES[path.removeprefix(files)]
            self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(cache: Path, endpoint: str, name: str, revision: str = "", *, offline: bool = False) -> list[Any]:
    """What ``fetched`` answers in a process of its own: huggingface_hub reads its environment once."""
    set_ = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1" if offline else "0"}
    known = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    ran = subprocess.run(
        [sys.executable, "-c", ASK, name, revision],
        env={**known, **set_},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: list[Any] = json.loads(ran.stdout)
    return answer


def lay_out(root: Path, commit: str, files: dict[str, bytes]) -> Path:
    """A model in the hub's cache, as huggingface_hub lays it out."""
    model = root / "hub" / "models--org--net"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir(exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    for name, data in files.items():
        blob = model / "blobs" / hashlib.sha1(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / name).symlink_to(Path("../..") / "blobs" / blob.name)
    return snapshot


def test_what_counts_is_fetched_and_a_branch_stands_for_a_commit(endpoint: str, tmp_path: Path) -> None:
    wanted = [["config.json", "model.safetensors"], Hub.commit]
    assert ask(tmp_path, endpoint, "org/net", "main") == wanted
    gone = "http://127.0.0.1:9"
    assert ask(tmp_path, gone, "org/net", "main", offline=True) == wanted
    assert ask(tmp_path, gone, "org/net", Hub.commit, offline=True) == wanted
    kind, message = ask(tmp_path, gone, "org/net", "main")
    assert (kind, message) == ("EnvironmentLacks", "cannot fetch hub:org/net@main")


@pytest.mark.parametrize(
    ("name", "revision", "kind", "said"),
    [
        ("org/none", "", "SpecError", "the hub has no model 'org/none', or it is private"),
        ("org/net", "v9", "SpecError", "org/net has no such revision"),
        ("org/gated", "", "EnvironmentLacks", "org/gated is gated"),
    ],
)
def test_a_refusal_is_said_in_our_words(
    endpoint: str, tmp_path: Path, name: str, revision: str, kind: str, said: str
) -> None:
    assert ask(tmp_path, endpoint, name, revision) == [kind, said]


def test_offline_only_the_cache_is_read_and_only_a_whole_model(tmp_path: Path) -> None:
    gone = "http://127.0.0.1:9"
    kind, message = ask(tmp_path, gone, "org/net", offline=True)
    assert (kind, message) == (
        "EnvironmentLacks",
        "hub:org/net is not in the hub's cache, and the hub is offline (HF_HUB_OFFLINE)",
    )
    lay_out(tmp_path, "b" * 40, {"config.json": b"{}"})
    kind, message = ask(tmp_path, gone, "org/net", offline=True)
    assert kind == "EnvironmentLacks" and "only a part of hub:org/net" in message


class TestResolver:
    SOURCE = SourceRef.model_validate("hub:org/net@main")

    @pytest.fixture
    def resolver(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolver:
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        return Resolver(tmp_path, tmp_path / "packages", FileDigests(tmp_path / "digests.sqlite"), Lock())

    def test_the_lock_pins_the_commit_and_its_content(
        self, resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        snapshot = lay_out(tmp_path, "c" * 40, {"config.json": b"{}", "model.safetensors": b"weights"})
        asked: list[str | None] = []

        def fetched(name: str, revision: str | None, place: Place) -> tuple[dict[str, Path], str]:
            asked.append(revision)
            return hub.cached(name, "c" * 40, place), "c" * 40

        monkeypatch.setattr(hub, "fetched", fetched)
        files = resolver.tree(self.SOURCE, PLACE)
        assert {name: file.path for name, file in files.items()} == {
            "config.json": snapshot / "config.json",
            "model.safetensors": snapshot / "model.safetensors",
        }
        assert resolver.lock.sources["hub:org/net@main"].version == "c" * 40
        assert resolver.tree(self.SOURCE, PLACE) == files
        assert asked == ["main"], "what is pinned and whole in the cache is not asked for again"

    def test_a_pinned_commit_with_another_content_is_refused(
        self, resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lay_out(tmp_path, "c" * 40, {"config.json": b"{}", "model.safetensors": b"weights"})
        found = hub.cached("org/net", "c" * 40, PLACE), "c" * 40
        asked: list[str | None] = []
        monkeypatch.setattr(hub, "fetched", lambda name, revision, place: (asked.append(revision), found)[1])
        resolver.tree(self.SOURCE, PLACE)
        (found[0]["config.json"].resolve()).write_bytes(b'{"changed": 1}')
        with pytest.raises(SpecError, match=r"not what forge\.lock says"):
            resolver.tree(self.SOURCE, PLACE)
        assert asked == ["main", "c" * 40]

    def test_a_link_out_of_the_cache_is_refused(self, resolver: Resolver, tmp_path: Path) -> None:
        snapshot = lay_out(tmp_path, "c" * 40, {"config.json": b"{}"})
        (tmp_path / "secret").write_bytes(b"secret")
        (snapshot / "model.safetensors").symlink_to(tmp_path / "secret")
        with pytest.raises(SpecError, match="leads out of it"):
            hub.cached("org/net", "c" * 40, PLACE)

    def test_a_snapshot_is_a_source_folder_like_any_other(self, resolver: Resolver, tmp_path: Path) -> None:
        snapshot = lay_out(tmp_path, "c" * 40, {"config.json": b"{}", "model.safetensors": b"weights"})
        files = resolver.tree(SourceRef.model_validate(str(snapshot)), PLACE)
        assert sorted(files) == ["config.json", "model.safetensors"]

    def test_a_hub_model_is_a_folder(self, resolver: Resolver) -> None:
        assert resolver.is_folder(self.SOURCE)
        with pytest.raises(SpecError, match="a source is a folder"):
            resolver.file(self.SOURCE, PLACE)
