from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tritonforge.artifact.artifact import Artifact, Draft
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import LocalStore, default_home
from tritonforge.errors import CheckFailed, EnvironmentLacks

KEY = "ab" * 32
SIGNATURE = Signature((Tensor("x", "FP32", ("N", 4), optional=True),), (Tensor("y", "INT64", ("N",)),), True)
Put = Callable[..., Artifact]


@pytest.fixture
def put(store: LocalStore) -> Put:
    """Commits files under a key."""

    def commit(key: str = KEY, /, *, metadata: dict[str, object] | None = None, **files: bytes) -> Artifact:
        with store.staging() as staged:
            for name, data in (files or {"a": b"one"}).items():
                path = staged / name.replace("__", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            draft = Draft("files", SIGNATURE, metadata or {})
            return store.commit(key, staged, draft, facets={"processor": "p"}, provenance={"step": "s"})

    return commit


def the_blob(store: LocalStore, artifact: Artifact, path: str = "a") -> Path:
    return store.blob(artifact.files[path].sha256)


def test_what_is_committed_is_found_again(store: LocalStore, put: Put) -> None:
    made = put(a=b"one", deep__b=b"two", metadata={"notes": ["é"], "n": {"x": 1.5}})
    record = store.lookup(KEY)
    assert record is not None
    assert (record.artifact, record.facets, record.provenance) == (made.digest, {"processor": "p"}, {"step": "s"})
    found = store.artifact(made.digest)
    assert found == made
    assert sorted(found.files) == ["a", "deep/b"]
    assert found.signature == SIGNATURE
    assert store.damaged(found) == []


def test_blobs_are_read_only_and_shared_by_content(store: LocalStore, put: Put) -> None:
    made = put(a=b"same", b=b"same")
    put("cd" * 32, c=b"same")
    blobs = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert blobs == [the_blob(store, made)]
    assert blobs[0].stat().st_mode & 0o777 == 0o444
    assert blobs[0].name == made.files["a"].sha256


def test_staging_is_gone_afterwards_even_on_failure(store: LocalStore, put: Put) -> None:
    put()
    with pytest.raises(ZeroDivisionError), store.staging() as staged:
        (staged / "x").write_bytes(b"x")
        raise ZeroDivisionError
    assert list((store.root / "staging").iterdir()) == []


def test_the_first_writer_wins(store: LocalStore, put: Put) -> None:
    first = put(a=b"one")
    second = put(a=b"two")
    assert second == first
    record = store.lookup(KEY)
    assert record is not None and record.artifact == first.digest


def test_a_forgotten_key_is_free_again(store: LocalStore, put: Put) -> None:
    put(a=b"one")
    store.forget(KEY)
    assert store.lookup(KEY) is None
    assert put(a=b"two").files["a"].size == 3
    store.forget("never heard of")


def truncate(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, Callable[[LocalStore, Artifact], None]] = {
    "missing blob": lambda store, made: the_blob(store, made).unlink(),
    "truncated blob": lambda store, made: truncate(the_blob(store, made)),
    "missing manifest": lambda store, made: store._sharded("artifacts", made.digest, ".json").unlink(),
    "truncated manifest": lambda store, made: truncate(store._sharded("artifacts", made.digest, ".json")),
    "manifest that is a list": lambda store, made: store._sharded("artifacts", made.digest, ".json").write_text("[]"),
    "manifest of another form": lambda store, made: store._sharded("artifacts", made.digest, ".json").write_text(
        '{"format": "x", "files": [], "signature": null, "metadata": {}}'
    ),
    "manifest that somebody edited": lambda store, made: store._sharded("artifacts", made.digest, ".json").write_text(
        json.dumps({**made.to_json(), "format": "other"})
    ),
    "truncated key": lambda store, made: truncate(store._sharded("keys", KEY, ".json")),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_a_miss_and_building_again_heals(store: LocalStore, put: Put, how: str) -> None:
    made = put(a=b"one")
    DAMAGE[how](store, made)
    assert store.lookup(KEY) is None
    again = put(a=b"one")
    assert again == made
    record = store.lookup(KEY)
    assert record is not None and record.artifact == made.digest
    assert store.damaged(made) == []


def test_bytes_that_changed_in_place_are_healed_when_the_step_runs_again(store: LocalStore, put: Put) -> None:
    made = put(a=b"one")
    blob = the_blob(store, made)
    blob.chmod(0o644)
    blob.write_bytes(b"0ne")
    assert store.damaged(made) == ["a"]
    store.forget(KEY)
    put(a=b"one")
    assert store.damaged(made) == []
    assert blob.stat().st_mode & 0o777 == 0o444


def test_a_damaged_winner_gives_way_to_another_result(store: LocalStore, put: Put) -> None:
    the_blob(store, put(a=b"one")).unlink()
    second = put(a=b"two")
    record = store.lookup(KEY)
    assert record is not None and record.artifact == second.digest


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_step_that_writes_something_else_than_files_is_refused(store: LocalStore, kind: str) -> None:
    with store.staging() as staged:
        (staged / "real").write_bytes(b"x")
        if kind == "pipe":
            os.mkfifo(staged / "odd")
        else:
            (staged / "odd").symlink_to("real" if kind == "link" else "nowhere")
        with pytest.raises(CheckFailed, match="cannot hold") as raised:
            store.commit(KEY, staged, Draft("files"), facets={}, provenance={})
    assert "'odd'" in str(raised.value.found)
    assert store.lookup(KEY) is None


RACE = """
import sys, time
from pathlib import Path
from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.store import LocalStore
store, me, rounds = LocalStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    with store.staging() as staged:
        (staged / "who").write_text(me)
        (staged / "both").write_text(str(number))
        made = store.commit(f"{number:064x}", staged, Draft("files"), facets={}, provenance={"by": me})
        print(made.digest, flush=True)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_that_race_for_a_key_get_one_artefact(store: LocalStore, put: Put, damaged: bool) -> None:
    rounds = 40
    if damaged:
        for number in range(rounds):
            the_blob(store, put(f"{number:064x}", a=f"old{number}".encode())).unlink()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(store.root), name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=60)[0].split() for racer in racers]
    bound = [record.artifact for number in range(rounds) if (record := store.lookup(f"{number:064x}"))]
    assert told[0] == told[1] == bound
    assert len(bound) == rounds
    assert not list(store.root.rglob("*.tmp"))


def test_what_a_killed_process_staged_is_swept_and_what_lives_stays(store: LocalStore) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tritonforge.artifact.store import LocalStore\n"
        "with LocalStore(Path(sys.argv[1])).staging() as staged:\n"
        "    (staged / 'x').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(store.root)], check=False, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert len(list((store.root / "staging").iterdir())) == 1
    with store.staging() as mine:
        (mine / "y").write_bytes(b"y")
        LocalStore(store.root).sweep_staging()
        assert list((store.root / "staging").iterdir()) == [mine]
        assert (mine / "y").read_bytes() == b"y"


def test_placed_files_are_links_to_the_blob(store: LocalStore, put: Put, tmp_path: Path) -> None:
    made = put(a=b"one")
    store.place(made, "a", tmp_path / "release" / "a")
    assert (tmp_path / "release" / "a").samefile(the_blob(store, made))


def test_a_store_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder must be")  # permissions do not bind root
    with pytest.raises(EnvironmentLacks, match="cannot write the store"):
        LocalStore(tmp_path / "store").open()


def test_roots_are_remembered_while_they_exist(store: LocalStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        store.add_root(tmp_path / name)
    store.add_root(tmp_path / "a")
    (tmp_path / "b").rmdir()
    assert store.roots() == [tmp_path / "a"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TRITONFORGE_HOME": "/x/y"}, "/x/y"),
        ({"TRITONFORGE_HOME": "", "XDG_CACHE_HOME": "/c"}, "/c/tritonforge"),
        ({"HOME": "/h"}, "/h/.cache/tritonforge"),
        ({"TRITONFORGE_HOME": "~/z", "HOME": "/h"}, "/h/z"),
    ],
)
def test_where_the_store_is(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRITONFORGE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_home() == Path(expected)


def test_bytes_that_changed_in_place_are_a_miss(store: LocalStore, put: Put) -> None:
    artifact = put()
    blob = the_blob(store, artifact)
    blob.chmod(0o644)
    blob.write_bytes(b"two")  # as many of them
    assert store.lookup(KEY) is None
    assert store.damaged(artifact) == ["a"]


def test_a_root_that_was_damaged_is_written_again(store: LocalStore, tmp_path: Path) -> None:
    store.add_root(tmp_path)
    [path] = (store.root / "roots").iterdir()
    for text in ('{"folded": "/"}', "{"):
        path.write_text(text)
        assert store.roots() == []
        store.add_root(tmp_path)
        assert store.roots() == [tmp_path]
