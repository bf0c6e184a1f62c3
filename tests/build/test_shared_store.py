"""What a build does with a store that a team shares: it is faster for it, and never depends on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifact.remote.conftest import folder_objects, shared

from build.conftest import Toys
from tritonforge.artifact.remote.address import Address
from tritonforge.artifact.remote.objects import Objects
from tritonforge.artifact.remote.record import blob_path, record_path
from tritonforge.artifact.remote.shared import SharedOutcome
from tritonforge.artifact.store import LocalStore
from tritonforge.build.graph import Node
from tritonforge.build.scheduler import NodeResult, Schedule

Results = dict[str, NodeResult]


@pytest.fixture
def team(tmp_path: Path) -> Path:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'tritonforge[remote]'")
    folder = tmp_path / "team"
    folder.mkdir()
    return folder


@pytest.fixture
def other(toys: Toys, tmp_path: Path) -> Toys:
    """Another machine, with the same step and an empty store."""
    (tmp_path / "other").mkdir()
    return Toys(LocalStore(tmp_path / "other" / "store").open(), tmp_path)


def build(
    toys: Toys,
    objects: Objects,
    *nodes: Node,
    wanted: set[str] | None = None,
    force: set[str] | None = None,
    write: bool = True,
    signing_key: bytes | None = None,
) -> tuple[Results, SharedOutcome]:
    team = shared(toys.store, objects, write=write, signing_key=signing_key)

    def change(schedule: Schedule) -> None:
        schedule.shared = team
        schedule.wanted = None if wanted is None else frozenset(wanted)
        schedule.force = frozenset(force or ())

    team.keep_leftovers()
    results = toys.run(*nodes, change=change)
    team.finish()
    outcome = team.outcome()
    team.stop()
    return results, outcome


def statuses(results: Results) -> dict[str, str]:
    return {name.removesuffix("/toy"): result.status for name, result in results.items()}


def chain(toys: Toys, **of_c: Any) -> tuple[Node, Node, Node]:
    """c reads b, which reads a; both machines note their steps in one trace."""
    return toys.node("a"), toys.node("b", {"in": "a/toy"}), toys.node("c", {"in": "b/toy"}, **of_c)


def test_what_another_machine_made_is_not_run(toys: Toys, other: Toys, team: Path) -> None:
    first, sent = build(toys, folder_objects(team), *chain(toys))
    assert (statuses(first), sent.sent, sent.left) == (dict.fromkeys("abc", "built"), 3, 0)
    ran = len(toys.trace())
    second, got = build(other, folder_objects(team), *chain(other))
    assert statuses(second) == dict.fromkeys("abc", "fetched")
    assert (got.fetched, got.sent, got.warnings) == (3, 0, ())
    assert [second[name].artifact for name in second] == [first[name].artifact for name in second]
    assert other.text(second["c/toy"]) == "abc"
    assert len(toys.trace()) == ran, "no step ran"
    again = other.run(*chain(other))
    assert statuses(again) == dict.fromkeys("abc", "cached"), "what was fetched stays, without the team's store"


def test_files_that_nobody_reads_stay_there(toys: Toys, other: Toys, team: Path) -> None:
    first, _ = build(toys, folder_objects(team), *chain(toys))
    second, got = build(other, folder_objects(team), *chain(other), wanted={"c/toy"})
    assert statuses(second) == dict.fromkeys("abc", "fetched")
    assert got.fetched_bytes == len("abc")
    assert other.store.artifact(str(second["b/toy"].artifact)) is None
    assert other.store.manifest(str(second["b/toy"].artifact)) is not None
    # They are known all the same, with the team's store and without it.
    again, got = build(other, folder_objects(team), *chain(other), wanted={"c/toy"})
    assert (statuses(again), got.fetched) == (dict.fromkeys("abc", "cached"), 0)
    # A step that must run has what it reads fetched, and nothing else.
    changed, got = build(other, folder_objects(team), *chain(other, unused=1), wanted={"c/toy"})
    assert statuses(changed) == {"a": "cached", "b": "cached", "c": "built"}
    assert other.store.artifact(str(first["b/toy"].artifact)) is not None
    assert other.store.artifact(str(first["a/toy"].artifact)) is None


@pytest.mark.parametrize("how", ["gone", "damaged", "no store"])
def test_files_that_were_left_there_and_are_not_to_be_had_are_made_here(
    toys: Toys, other: Toys, team: Path, how: str
) -> None:
    first, _ = build(toys, folder_objects(team), *chain(toys))
    build(other, folder_objects(team), *chain(other), wanted={"c/toy"})
    for path in (team / "blobs").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.unlink() if how == "gone" else path.write_bytes(b"?" * path.stat().st_size)
    nodes = chain(other, unused=1)
    if how == "no store":
        changed = other.run(*nodes, change=lambda schedule: setattr(schedule, "wanted", frozenset({"c/toy"})))
    else:
        changed, got = build(other, folder_objects(team), *nodes, wanted={"c/toy"}, write=False)
        assert got.refused[0] == "b/toy"
    assert statuses(changed) == dict.fromkeys("abc", "built")
    assert changed["b/toy"].artifact == first["b/toy"].artifact
    assert other.text(changed["c/toy"]) == "abc"


@pytest.mark.parametrize("poison", [b"?", b"", b"ab"])
def test_a_poisoned_file_is_refused_and_mended(toys: Toys, other: Toys, team: Path, poison: bytes) -> None:
    first, _ = build(toys, folder_objects(team), toys.node("a"))
    artifact = toys.store.artifact(str(first["a/toy"].artifact))
    assert artifact is not None
    blob = team / blob_path(artifact.files["out"].sha256)
    blob.chmod(0o644)
    blob.write_bytes(poison)
    second, got = build(other, folder_objects(team), other.node("a"))
    assert (statuses(second), got.refused) == ({"a": "built"}, ("a/toy",))
    (warning,) = got.warnings
    assert warning.startswith(f"file://{team}: a/toy is refused, and runs here: its file 'out': the bytes ")
    assert second["a/toy"].artifact == first["a/toy"].artifact
    assert blob.read_bytes() == b"a"


def test_a_poisoned_record_is_refused_and_mended(toys: Toys, other: Toys, team: Path) -> None:
    one, _ = build(toys, folder_objects(team), toys.node("a"), toys.node("z"))
    a, z = (team / record_path(str(one[name].key)) for name in ("a/toy", "z/toy"))
    good = a.read_bytes()
    a.write_bytes(z.read_bytes())  # a record of another key: right in itself
    second, got = build(other, folder_objects(team), other.node("a"), other.node("z"))
    assert statuses(second) == {"a": "built", "z": "fetched"}
    assert "it is the record of another key" in got.warnings[0]
    assert len(a.read_bytes()) == len(good) or b'"key":"' + str(one["a/toy"].key).encode() in a.read_bytes()
    assert other.text(second["a/toy"]) == "a"


def test_only_what_the_team_signed_counts(toys: Toys, other: Toys, team: Path) -> None:
    build(toys, folder_objects(team), toys.node("a"), signing_key=None)
    build(toys, folder_objects(team), toys.node("b"), signing_key=b"the team's")
    second, got = build(
        other, folder_objects(team), other.node("a"), other.node("b"), signing_key=b"the team's", write=False
    )
    assert statuses(second) == {"a": "built", "b": "fetched"}
    assert "it is not signed" in got.warnings[0]


def test_a_forced_step_replaces_what_is_there(toys: Toys, team: Path) -> None:
    first, _ = build(toys, folder_objects(team), toys.node("a"))
    record = team / record_path(str(first["a/toy"].key))
    before = record.stat().st_mtime_ns
    time.sleep(0.01)
    again, sent = build(toys, folder_objects(team), toys.node("a"), force={"a/toy"})
    assert (statuses(again), sent.sent) == ({"a": "built"}, 1)
    assert record.stat().st_mtime_ns != before


def test_a_reader_sends_nothing(toys: Toys, team: Path) -> None:
    _, done = build(toys, folder_objects(team), toys.node("a"), write=False)
    assert (done.sent, done.left, list(team.iterdir())) == (0, 0, [])


class Broken:
    """A file system of fsspec that does what a test says instead of answering."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*words: object, **options: object) -> object:
            self.calls += 1
            return self.act()

        return call


def objects_of(system: object, timeout_s: float = 1.0) -> Objects:
    return Objects(Address("s3", "team/prefix"), system, timeout_s)


def refuse_connection() -> object:
    raise ConnectionRefusedError(111, "Connection refused")


def refuse_access() -> object:
    raise PermissionError("Access Denied")


def break_down() -> object:
    raise RuntimeError("a defect of a library")


@pytest.mark.parametrize("act", [refuse_connection, refuse_access, break_down])
def test_a_store_that_cannot_be_reached_is_left_alone_and_said_once(toys: Toys, act: Callable[[], object]) -> None:
    system = Broken(act)
    nodes = [toys.node(f"n{index}") for index in range(12)]
    results, done = build(toys, objects_of(system), *nodes)
    assert set(statuses(results).values()) == {"built"}
    assert len(done.warnings) == 1
    assert "it is left alone for the rest of this build" in done.warnings[0]
    assert system.calls <= 16, "those that were under way when the first one failed"
    assert (done.sent, done.left) == (0, 12)


def test_a_store_that_never_answers_costs_its_timeout_once(toys: Toys) -> None:
    plain = time.monotonic()
    toys.run(toys.node("warm"))
    plain = time.monotonic() - plain
    hanging = threading.Event()
    since = time.monotonic()
    results, done = build(toys, objects_of(Broken(lambda: hanging.wait(60)), timeout_s=1.5), *chain(toys))
    took = time.monotonic() - since
    hanging.set()
    assert statuses(results) == dict.fromkeys("abc", "built")
    assert took < 3 * plain + 1.5 + 2
    assert len(done.warnings) == 1
    assert done.left == 3


def test_a_store_that_is_slow_at_every_turn_costs_its_timeout_in_all(toys: Toys) -> None:
    def slowly() -> object:
        time.sleep(0.7)
        raise FileNotFoundError(2, "no such key")

    nodes = [toys.node("n0")]
    for index in range(1, 8):
        nodes.append(toys.node(f"n{index}", {"in": f"n{index - 1}/toy"}))
    results, done = build(toys, objects_of(Broken(slowly), timeout_s=2.0), *nodes, write=False)
    assert set(statuses(results).values()) == {"built"}
    (warning,) = done.warnings
    assert "it was waited for for 2 s, and saved 0 s; it is left alone" in warning


def test_a_build_with_nothing_to_do_asks_nobody(toys: Toys, team: Path) -> None:
    build(toys, folder_objects(team), *chain(toys))
    system = Broken(refuse_connection)
    results, done = build(toys, objects_of(system), *chain(toys))
    assert statuses(results) == dict.fromkeys("abc", "cached")
    assert (system.calls, done.warnings) == (0, ())


def test_what_was_not_sent_is_sent_by_the_next_build(toys: Toys, other: Toys, team: Path) -> None:
    team.rename(team.with_name("away"))
    _, done = build(toys, folder_objects(team), toys.node("a"))
    assert (done.sent, done.left) == (0, 1)
    assert "does not exist" in done.warnings[0]
    team.with_name("away").rename(team)
    results, done = build(toys, folder_objects(team), toys.node("a"))
    assert (statuses(results), done.sent, done.left) == ({"a": "cached"}, 1, 0)
    assert not [path for path in (toys.store.root / "unpushed").rglob("*") if path.is_file()]
    results, _ = build(other, folder_objects(team), other.node("a"))
    assert statuses(results) == {"a": "fetched"}


def test_two_nodes_with_one_key_run_once(toys: Toys, team: Path) -> None:
    one, two = toys.node("a"), Node("twin/toy", "twin", "toy", toys.node("a").config)
    results, done = build(toys, folder_objects(team), one, two)
    assert sorted(statuses(results).values()) == ["built", "cached"]
    assert toys.trace().count(("start", "a")) == 1
    assert done.sent == 1


def test_a_damaged_file_here_is_not_sent(toys: Toys, team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toys.run(toys.node("a"))
    artifact = toys.store.artifact(str(first["a/toy"].artifact))
    assert artifact is not None
    blob = toys.store.blob(artifact.files["out"].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"?")
    sending = shared(toys.store, folder_objects(team))
    sending.keep(str(first["a/toy"].key))
    sending.finish()
    assert "is damaged here, and is not sent" in sending.outcome().warnings[0]
    assert [path for path in team.rglob("*") if path.is_file()] == []
