"""The agent as the program that it is: every operation, whole or not at all, and fenced by the lock's token."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks, InternalError
from tritonforge.rollout.agent import AGENT, agent
from tritonforge.rollout.place import AgentRefused, LocalPlace
from tritonforge.rollout.targets.embedded import haproxy_program
from tritonforge.triton import ports

ME = {"id": "me", "who": "me@here", "machine": "m/b", "pid": 1, "started": "1", "for": "a test"}


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "root")


def lock(place: LocalPlace, token: str = "t", instead: str | None = None, **holder: object) -> Any:
    return place.call("lock", {"token": token, "holder": {**ME, "id": f"id-{token}", **holder}, "instead": instead})


def append(place: LocalPlace, token: str = "t", after: int | None = None, **event: object) -> Any:
    return place.call("append", {"token": token, "after": after, "event": {"event": "intend", "step": "s", **event}})


def refused(code: str) -> Any:
    class Expected:
        def __enter__(self) -> None:
            self.inner = pytest.raises(AgentRefused)
            self.caught = self.inner.__enter__()

        def __exit__(self, *found: Any) -> bool:
            done = bool(self.inner.__exit__(*found))
            assert self.caught.value.code == code
            return done

    return Expected()


def incoming(place: LocalPlace, content: bytes, name: str | None = None) -> str:
    """A file on its way; its name is its sha256 unless another is given."""
    digest = name or hashlib.sha256(content).hexdigest()
    folder = place.root / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(content)
    return digest


def admitted(place: LocalPlace, content: bytes) -> dict[str, object]:
    digest = incoming(place, content)
    place.call("admit", {"files": [digest]})
    return {"sha256": digest, "size": len(content)}


def snapshot(
    place: LocalPlace, release: str, files: dict[str, dict[str, object]], folders: tuple[str, ...] = ()
) -> Any:
    return place.call("snapshot", {"token": "t", "release": release, "files": files, "folders": list(folders)})


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class TestJournal:
    def test_events_are_numbered_and_dated(self, place: LocalPlace) -> None:
        lock(place)
        assert [append(place)["seq"], append(place)["seq"]] == [1, 2]
        events = place.call("read")["journal"]
        assert [event["seq"] for event in events] == [1, 2]
        assert all(event["at"].endswith("Z") for event in events)

    def test_a_line_that_a_crash_cut_off_is_gone_with_the_next_one(self, place: LocalPlace) -> None:
        lock(place)
        append(place, n=1)
        journal = place.root / "journal.jsonl"
        whole = journal.read_bytes()
        journal.write_bytes(whole + b'{"event": "begi')
        assert len(place.call("read")["journal"]) == 1
        append(place, n=2)
        assert [event["n"] for event in place.call("read")["journal"]] == [1, 2]
        assert journal.read_bytes().startswith(whole)

    def test_a_damaged_line_in_the_middle_is_said_and_nothing_is_written(self, place: LocalPlace) -> None:
        lock(place)
        append(place)
        journal = place.root / "journal.jsonl"
        journal.write_bytes(b"nonsense\n" + journal.read_bytes())
        before = journal.read_bytes()
        for operation in (lambda: place.call("read"), lambda: append(place)):
            with pytest.raises(AgentRefused, match="line 1 of the journal is damaged"):
                operation()
        assert journal.read_bytes() == before

    def test_another_writer_shows(self, place: LocalPlace) -> None:
        lock(place)
        append(place, after=0)
        with refused("journal"):
            append(place, after=0)
        assert len(place.call("read")["journal"]) == 1

    def test_two_writers_at_once_lose_no_line(self, place: LocalPlace) -> None:
        lock(place)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: append(place, n=number), range(12)))
        events = place.call("read")["journal"]
        assert sorted(event["n"] for event in events) == list(range(12))
        assert [event["seq"] for event in events] == list(range(1, 13))


class TestLock:
    def test_only_its_token_changes_things(self, place: LocalPlace) -> None:
        lock(place)
        for operation, arguments in {
            "append": {"event": {"event": "x"}},
            "write_file": {"path": "a", "text": "b"},
            "snapshot": {"release": "r", "files": {}},
            "prune": {"keep": []},
            "weigh": {"control": [], "weights": {}},
            "arm": {"rollout": "r", "seconds": 1, "revert": []},
            "confirm": {},
            "disarm": {},
        }.items():
            with refused("lock"):
                place.call(operation, {**arguments, "token": "another"})
        assert {path.name for path in place.root.iterdir()} == {"lock.json", ".alone"}

    def test_it_is_taken_over_only_by_the_id_of_the_one_that_holds_it(self, place: LocalPlace) -> None:
        lock(place, "one")
        for instead in (None, "id-two", "id-three"):
            with refused("locked"):
                lock(place, "two", instead)
        assert lock(place, "two", "id-one")["taken_over"]["id"] == "id-one"
        with refused("lock"):
            append(place, "one")
        with refused("locked"):  # somebody took it in the meantime
            lock(place, "three", "id-one")

    def test_it_never_tells_its_token(self, place: LocalPlace) -> None:
        place.call("lock", {"token": "secret", "holder": ME})
        with pytest.raises(AgentRefused) as caught:
            lock(place, "two")
        assert caught.value.facts["holder"]["who"] == "me@here"
        assert "secret" not in json.dumps([caught.value.facts, place.call("read")])
        assert (place.root / "lock.json").stat().st_mode & 0o777 == 0o600

    def test_unlocking_needs_the_token_or_the_id(self, place: LocalPlace) -> None:
        lock(place, "one")
        with refused("locked"):
            place.call("unlock", {"token": "two"})
        place.call("unlock", {"instead": "id-one"})
        assert place.call("unlock", {"token": "one"}) == {"holder": None}

    def test_what_the_holder_before_left_pending_goes_with_the_lock(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place, "one")
        place.call("arm", {"token": "one", "rollout": "r", "seconds": 60, "revert": []})
        lock(place, "two", "id-one")
        assert json.loads((place.root / "pending.json").read_text())["token"] == "two"


class TestPaths:
    @pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "..", "", "a\0b", "."])
    def test_no_path_leaves_the_root(self, place: LocalPlace, tmp_path: Path, path: str) -> None:
        lock(place)
        with refused("path"):
            place.call("write_file", {"token": "t", "path": path, "text": "x"})
        with refused("path"):
            place.call("read_file", {"path": path})
        with refused("path"):
            snapshot(place, "r", {path: admitted(place, b"x")})
        assert [item.name for item in tmp_path.iterdir()] == ["root"]

    @pytest.mark.parametrize("name", ["../../etc/passwd", "ab", "Z" * 64, ""])
    def test_a_blob_has_a_sha256_for_a_name(self, place: LocalPlace, name: str) -> None:
        with refused("path"):
            place.call("admit", {"files": [name]})
        with refused("path"):
            place.call("missing", {"files": {name: 1}})

    @pytest.mark.parametrize("release", ["..", "a/../..", "/x"])
    def test_a_release_is_a_folder_of_snapshots(self, place: LocalPlace, release: str) -> None:
        lock(place)
        with refused("path"):
            snapshot(place, release, {"models/a": admitted(place, b"x")})

    def test_a_link_in_the_root_is_not_followed_out_of_it(self, place: LocalPlace, tmp_path: Path) -> None:
        lock(place)
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        (place.root / "proxy").symlink_to(outside)
        with refused("path"):
            place.call("read_file", {"path": "proxy/secret"})
        with refused("path"):
            place.call("write_file", {"token": "t", "path": "proxy/haproxy.cfg", "text": "x"})
        assert [item.name for item in outside.iterdir()] == ["secret"]


class TestBlobs:
    def test_wrong_content_is_refused_and_deleted(self, place: LocalPlace) -> None:
        good, bad = incoming(place, b"good"), incoming(place, b"other", hashlib.sha256(b"promised").hexdigest())
        with pytest.raises(AgentRefused) as caught:
            place.call("admit", {"files": [good, bad]})
        assert (caught.value.code, caught.value.facts["files"]) == ("content", [bad])
        assert [path.name for path in (place.root / "blobs").rglob("*") if path.is_file()] == [good]
        assert list((place.root / "incoming").iterdir()) == []

    def test_admitting_twice_is_admitting_once(self, place: LocalPlace) -> None:
        digest = str(admitted(place, b"x")["sha256"])
        assert place.call("admit", {"files": [digest]}) == {"admitted": 1}
        with refused("content"):
            place.call("admit", {"files": [hashlib.sha256(b"never sent").hexdigest()]})

    def test_half_a_blob_is_missing(self, place: LocalPlace) -> None:
        item = admitted(place, b"0123456789")
        blob = place.root / "blobs" / str(item["sha256"])[:2] / str(item["sha256"])
        wanted = {"files": {item["sha256"]: 10}}
        assert place.call("missing", wanted)["missing"] == []
        blob.chmod(0o644)
        blob.write_bytes(b"01234")
        answer = place.call("missing", wanted)
        assert (answer["missing"], answer["bytes"]) == ([item["sha256"]], 10)

    def test_they_cannot_be_written_to(self, place: LocalPlace) -> None:
        item = admitted(place, b"x")
        assert (place.root / "blobs" / str(item["sha256"])[:2] / str(item["sha256"])).stat().st_mode & 0o222 == 0


class TestSnapshots:
    def test_it_has_the_files_and_the_empty_folders(self, place: LocalPlace) -> None:
        lock(place)
        files = {"models/a/1/m.onnx": admitted(place, b"m"), "models/a/config.pbtxt": admitted(place, b"c")}
        assert snapshot(place, "r", files, ("models/e/1",)) == {"new": True}
        made = tree(place.root / "snapshots" / "r")
        assert made.pop("snapshot.json")
        assert made == {
            "models": None,
            "models/a": None,
            "models/a/1": None,
            "models/a/1/m.onnx": b"m",
            "models/a/config.pbtxt": b"c",
            "models/e": None,
            "models/e/1": None,
        }
        assert place.call("read")["snapshots"] == {"r": 2}

    def test_making_it_again_changes_nothing(self, place: LocalPlace) -> None:
        lock(place)
        files = {"models/a": admitted(place, b"m")}
        snapshot(place, "r", files)
        before = (place.root / "snapshots" / "r").stat().st_ino
        assert snapshot(place, "r", files) == {"new": False}
        assert (place.root / "snapshots" / "r").stat().st_ino == before

    @pytest.mark.parametrize("damage", ["a file is gone", "a file is short", "its list is gone"])
    def test_a_damaged_one_is_made_anew(self, place: LocalPlace, damage: str) -> None:
        lock(place)
        files = {"models/a": admitted(place, b"mm"), "models/b": admitted(place, b"n")}
        snapshot(place, "r", files)
        folder = place.root / "snapshots" / "r"
        if damage == "its list is gone":
            (folder / "snapshot.json").unlink()
        else:
            (folder / "models/a").unlink()
        if damage == "a file is short":
            (folder / "models/a").write_bytes(b"m")
        assert snapshot(place, "r", files) == {"new": True}
        assert tree(folder / "models") == {"a": b"mm", "b": b"n"}
        assert [item.name for item in (place.root / "snapshots").iterdir()] == ["r"]

    def test_without_a_blob_there_is_none(self, place: LocalPlace) -> None:
        lock(place)
        with pytest.raises(EnvironmentLacks):
            snapshot(place, "r", {"models/a": {"sha256": "0" * 64, "size": 1}})
        assert list((place.root / "snapshots").iterdir()) == []

    def test_pruning_keeps_what_is_named_and_what_that_needs(self, place: LocalPlace) -> None:
        lock(place)
        shared, one, two = (admitted(place, data) for data in (b"shared", b"one", b"two"))
        snapshot(place, "old", {"models/s": shared, "models/x": one})
        snapshot(place, "new", {"models/s": shared, "models/x": two})
        (place.root / "snapshots" / ".staging-1").mkdir()
        incoming(place, b"on its way")
        assert place.call("prune", {"token": "t", "keep": ["new"]}) == {"gone": ["old"]}
        assert tree(place.root / "snapshots" / "new" / "models") == {"s": b"shared", "x": b"two"}
        assert [item.name for item in (place.root / "snapshots").iterdir()] == ["new"]
        blobs = {path.name for path in (place.root / "blobs").rglob("*") if path.is_file()}
        assert blobs == {shared["sha256"], two["sha256"]}
        assert place.call("prune", {"token": "t", "keep": ["new"]}) == {"gone": []}


# --- a crash at each of its own durable steps

DURABLE = ("replace", "rename", "link", "unlink", "fsync", "mkdir", "chmod", "rmdir")


def operations(place: LocalPlace) -> list[tuple[str, dict[str, Any]]]:
    one, two = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
    files = {"models/a/1/m": {"sha256": two, "size": 3}, "models/b": {"sha256": one, "size": 3}}
    return [
        ("lock", {"token": "t", "holder": ME}),
        ("append", {"token": "t", "event": {"event": "begin", "rollout": "r"}}),
        ("admit", {"files": [one, two]}),
        ("snapshot", {"token": "t", "release": "r", "files": files, "folders": ["models/c/1"]}),
        ("write_file", {"token": "t", "path": "proxy/haproxy.cfg", "text": "new"}),
        ("prune", {"token": "t", "keep": ["r"]}),
        ("disarm", {"token": "t"}),
        ("unlock", {"token": "t"}),
    ]


def in_child(root: Path, operation: str, arguments: dict[str, Any], crash_at: int) -> int:
    """Run one operation in a child that dies at its ``crash_at``-th durable step; its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    passed = 0

    def dying(name: str) -> Callable[..., Any]:
        true = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == crash_at:
                os._exit(137)
            return true(*args, **kwargs)

        return call

    for name in DURABLE:
        setattr(os, name, dying(name))
    try:
        agent.OPERATIONS[operation](str(root), arguments)
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.parametrize("number", range(8), ids=lambda number: operations(LocalPlace(Path("x")))[number][0])
def test_an_operation_that_dies_at_any_durable_step_ends_well_when_it_is_done_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "beat", lambda: "always the same")

    def prepared(root: Path) -> LocalPlace:
        place = LocalPlace(root)
        for data in (b"one", b"two"):
            incoming(place, data)
        (root / "pending.json").write_text('{"token": "t"}')
        for operation, arguments in operations(place)[:number]:
            agent.OPERATIONS[operation](str(root), arguments)
        snapshots = root / "snapshots"
        if operations(place)[number][0] == "prune":
            (snapshots / "old").mkdir()
            (snapshots / "old" / "file").write_text("x")
        return place

    def outcome(root: Path) -> dict[str, bytes | None]:
        found = tree(root)
        for name in ("journal.jsonl", "lock.json"):  # the time of writing is in them
            if found.get(name):
                found[name] = str(len((found[name] or b"").splitlines())).encode()
        return found

    place = prepared(tmp_path / "undisturbed")
    operation, arguments = operations(place)[number]
    agent.OPERATIONS[operation](str(place.root), arguments)
    wanted = outcome(place.root)
    for crash_at in range(1, 200):
        root = tmp_path / str(crash_at)
        again = prepared(root)
        code = in_child(root, operation, arguments, crash_at)
        half = outcome(root)
        journal = half.get("journal.jsonl")
        assert journal in (None, b"1")
        if operation != "append" or not (root / "journal.jsonl").exists():
            agent.OPERATIONS[operation](str(root), arguments)
            left = {name for name in outcome(root) if name.endswith(".tmp")}
            assert {name: data for name, data in outcome(root).items() if name not in left} == wanted, crash_at
        assert again.call("read")["hello"]["agent"] == agent.VERSION
        if code == 0:
            assert crash_at > 1
            return
        assert code == 137
    raise AssertionError("it never came through")


# --- the proxy

CONFIG = """\
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout client 5s
    timeout server 5s
    timeout connect 1s
frontend f
    bind 127.0.0.1:{port}
    default_backend triton_http
backend triton_http
    server blue 127.0.0.1:{a} weight 100
    server green 127.0.0.1:{b} weight 0
    server spare-blue 127.0.0.1:{a} backup
    server spare-green 127.0.0.1:{b} backup
backend triton_grpc
    server blue 127.0.0.1:{a} weight 100
    server green 127.0.0.1:{b} weight 0
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """The runtime API of a real HAProxy."""
    try:
        program = haproxy_program()
    except EnvironmentLacks as error:
        pytest.skip(error.message)
    path = tmp_path / "s"
    chosen = {name: ports.free("127.0.0.1") for name in ("port", "a", "b")}
    (tmp_path / "haproxy.cfg").write_text(CONFIG.format(socket=path, **chosen))
    proxy = subprocess.Popen([program, "-db", "-f", str(tmp_path / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)
    yield f"unix:{path}"
    proxy.kill()
    proxy.wait()


class TestProxy:
    def test_weights_are_set_in_both_backends_and_can_be_set_again(self, place: LocalPlace, control: str) -> None:
        lock(place)
        for _ in range(2):
            place.call("weigh", {"token": "t", "control": [control], "weights": {"blue": 30, "green": 70}})
        seen = place.call("proxy", {"control": [control]})
        assert {backend: {slot: row["weight"] for slot, row in rows.items()} for backend, rows in seen.items()} == {
            "triton_http": {"blue": 30, "green": 70},
            "triton_grpc": {"blue": 30, "green": 70},
        }

    def test_spares_are_who_may_stand_in(self, place: LocalPlace, control: str) -> None:
        lock(place)

        def stopped() -> dict[str, bool]:
            rows = agent.proxy_rows(control)
            return {row["svname"]: row["status"].startswith("MAINT") for row in rows if "spare" in row["svname"]}

        place.call("weigh", {"token": "t", "control": [control], "weights": {}, "spares": ["blue"]})
        assert stopped() == {"spare-blue": False, "spare-green": True}
        place.call("weigh", {"token": "t", "control": [control], "weights": {}, "spares": ["blue", "green"]})
        assert stopped() == {"spare-blue": False, "spare-green": False}

    def test_one_that_does_not_answer_is_named(self, place: LocalPlace, tmp_path: Path) -> None:
        lock(place)
        for operation in ("weigh", "proxy"):
            with pytest.raises(AgentRefused, match=r"the proxy at unix:.*nowhere does not answer"):
                place.call(operation, {"token": "t", "control": [f"unix:{tmp_path}/nowhere"], "weights": {"blue": 1}})


# --- the dead-man timer

Watch = Callable[[LocalPlace], subprocess.Popen[bytes]]
REVERT = [{"op": "write_file", "path": "went-back", "text": "yes"}]


@pytest.fixture
def watch() -> Iterator[Watch]:
    started: list[subprocess.Popen[bytes]] = []

    def start(place: LocalPlace) -> subprocess.Popen[bytes]:
        place.root.mkdir(exist_ok=True)
        (place.root / "watch.json").unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-S", "-E", str(AGENT), "--root", str(place.root), "watch"])
        started.append(process)
        until(lambda: place.call("read")["watching"])
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def went_back(place: LocalPlace) -> bool:
    return (place.root / "went-back").exists() and place.call("read")["pending"] is None


def arm(place: LocalPlace, seconds: float, revert: list[dict[str, Any]] = REVERT, token: str = "t") -> None:
    place.call("arm", {"token": token, "rollout": "r", "seconds": seconds, "revert": revert})


class TestTimer:
    def test_it_goes_back_when_nobody_confirms(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place)
        arm(place, 0.5)
        until(lambda: went_back(place))
        read = place.call("read")
        assert [(event["event"], event["by"]) for event in read["journal"]] == [("reverted", "dead-man timer")]
        assert read["lock"] is None
        with refused("lock"):  # whoever was slow has lost it
            place.call("confirm", {"token": "t"})

    def test_confirming_puts_it_off(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place)
        arm(place, 3.0)
        ends = time.monotonic() + 4.0
        while time.monotonic() < ends:
            place.call("confirm", {"token": "t"})
            time.sleep(0.3)
        assert not (place.root / "went-back").exists()
        place.call("disarm", {"token": "t"})
        with refused("reverted"):
            place.call("confirm", {"token": "t"})

    def test_it_cannot_be_armed_where_it_does_not_run(self, place: LocalPlace, watch: Watch) -> None:
        lock(place)
        with refused("watch"):
            arm(place, 60)
        watch(place)
        arm(place, 60)

    def test_what_was_committed_stays(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place)
        arm(place, 1.5)
        append(place, event="committed", rollout="r")
        until(lambda: place.call("read")["pending"] is None)
        assert not (place.root / "went-back").exists()
        assert [event["event"] for event in place.call("read")["journal"]] == ["committed"]

    def test_a_commit_that_stopped_in_the_middle_has_lost_to_it(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place)
        arm(place, 0.5)
        until(lambda: went_back(place))
        with refused("lock"):
            append(place, event="committed", rollout="r")

    @pytest.mark.parametrize("how", ["unlocked", "broken"])
    def test_it_goes_back_although_the_lock_was_let_go_of(self, place: LocalPlace, watch: Watch, how: str) -> None:
        watch(place)
        lock(place)
        arm(place, 2.0)
        place.call("unlock", {"token": "t"} if how == "unlocked" else {"instead": "id-t"})
        until(lambda: went_back(place))

    def test_it_goes_back_although_whoever_took_the_lock_over_died_as_well(
        self, place: LocalPlace, watch: Watch
    ) -> None:
        watch(place)
        lock(place, "one")
        arm(place, 2.0, token="one")
        lock(place, "two", "id-one")
        until(lambda: went_back(place))
        assert place.call("read")["lock"] is None

    def test_a_timer_that_was_stopped_goes_on(self, place: LocalPlace, watch: Watch) -> None:
        process = watch(place)
        lock(place)
        arm(place, 1.0)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        assert not (place.root / "went-back").exists()
        process.send_signal(signal.SIGCONT)
        until(lambda: went_back(place))

    def test_a_timer_that_was_killed_is_started_anew_and_waits_the_whole_time(
        self, place: LocalPlace, watch: Watch
    ) -> None:
        process = watch(place)
        lock(place)
        arm(place, 2.5)
        time.sleep(1.5)
        process.kill()
        process.wait()
        began = time.monotonic()
        watch(place)
        until(lambda: went_back(place))
        assert time.monotonic() - began >= 2.5

    def test_what_fails_is_tried_again(self, place: LocalPlace, watch: Watch) -> None:
        watch(place)
        lock(place)
        (place.root / "file").write_text("")
        arm(place, 0.3, [{"op": "write_file", "path": "file/below", "text": "x"}, *REVERT])
        until(lambda: (place.root / "went-back").exists())  # one failure does not keep the others back
        assert place.call("read")["pending"] is not None
        (place.root / "file").unlink()
        until(lambda: went_back(place))
        assert (place.root / "file" / "below").read_text() == "x"

    def test_confirming_at_the_last_moment_never_ends_it(self, place: LocalPlace) -> None:
        """The deadline passes, and before the timer is alone somebody confirms."""
        lock(place)
        stop = threading.Event()
        os.makedirs(place.root, exist_ok=True)
        armed = {"rollout": "r", "seconds": 0.0, "token": "t", "revert": REVERT, "beat": "0"}
        agent.write_json(str(place.root / "pending.json"), armed)
        reads = iter(range(100))
        true = agent.read_json

        def changing(path: str) -> Any:
            said = true(path)
            if path.endswith("pending.json") and said is not None:
                number = next(reads)
                if number >= 6:
                    stop.set()
                    raise KeyboardInterrupt
                said["beat"] = str(number // 2)  # seen, then due, but another one once it is alone
            return said

        agent.read_json = changing
        try:
            with pytest.raises(KeyboardInterrupt):
                agent.op_watch(str(place.root), {})
        finally:
            agent.read_json = true
        assert stop.is_set()
        assert not (place.root / "went-back").exists()

    def test_it_ends_with_its_folder(self, place: LocalPlace, watch: Watch) -> None:
        process = watch(place)
        for _ in range(50):
            for path in sorted(place.root.rglob("*"), reverse=True):
                path.unlink(missing_ok=True)
            try:
                place.root.rmdir()
                break
            except OSError:
                continue
        assert process.wait(10) == 0
        assert not place.root.exists()

    def test_no_clock_that_can_be_set_is_looked_at(self) -> None:
        for function in (agent.op_watch, agent.op_arm, agent.op_confirm, agent.watching, agent.revert, agent.beat):
            assert "time.time()" not in inspect.getsource(function)
            assert "now()" not in inspect.getsource(function)


class TestProgram:
    def test_what_is_no_folder_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(EnvironmentLacks, match="cannot use"):
            LocalPlace(tmp_path / "file").call("read")

    def test_arguments_that_lack_something_are_our_own_defect(self, place: LocalPlace) -> None:
        with pytest.raises(InternalError, match="the agent failed at lock"):
            place.call("lock", {})

    def test_it_runs_with_the_standard_library_alone(self) -> None:
        text = AGENT.read_text()
        names = {
            line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
        }
        assert names <= set(sys.stdlib_module_names)
        ast.parse(text, feature_version=(3, 6))
        assert not re.search(r"removeprefix|removesuffix|dirs_exist_ok|missing_ok|capture_output", text)

    def test_control_of_an_absent_host_is_refused(self, place: LocalPlace) -> None:
        with refused("proxy"):
            place.call("proxy", {"control": ["proxy.invalid:1"]})

    def test_all_addresses_of_a_name_are_controlled(self) -> None:
        found = agent.controls({"control": ["localhost:1999"]})
        assert set(found) <= {"127.0.0.1:1999", "::1:1999"}
        assert socket.gethostbyname("localhost") == "127.0.0.1"
