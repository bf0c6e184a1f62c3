from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tritonforge.errors import SpecError
from tritonforge.spec.lock import Lock, LockedSource, lock_path, read_lock, write_lock

digests = st.text("0123456789abcdef", min_size=64, max_size=64) | st.sampled_from(["1" * 64, "0e" + "1" * 62])


class Numbers(RuleBasedStateMachine):
    """Whatever is built in whatever order: a number stands for one artefact for ever, and new ones only grow."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()
        self.given: dict[int, str] = {}

    @rule(artifact=st.sampled_from("abcdef"))
    def build(self, artifact: str) -> None:
        known = artifact in self.given.values()
        highest = max(self.given, default=0)
        number = self.lock.number_for("local", "net", artifact)
        assert self.given.setdefault(number, artifact) == artifact
        assert known or number == highest + 1

    @rule(artifact=st.sampled_from("abcdef"), wanted=st.integers(1, 12))
    def ask(self, artifact: str, wanted: int) -> None:
        if self.given.get(wanted, artifact) != artifact:
            with pytest.raises(SpecError, match=f"version {wanted} of 'net' is taken"):
                self.lock.number_for("local", "net", artifact, wanted=wanted)
        else:
            assert self.lock.number_for("local", "net", artifact, wanted=wanted) == wanted
            self.given[wanted] = artifact
            assert self.lock.number_for("local", "net", artifact) >= wanted

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.lock.versions.get("local", {}).get("net", {}) == self.given


TestNumbers = Numbers.TestCase


def test_an_equal_artefact_keeps_its_number_and_folders_and_platforms_count_alone() -> None:
    lock = Lock()
    found = [
        lock.number_for(*key)
        for key in (("p", "a", "x"), ("p", "a", "y"), ("p", "a", "x"), ("p", "b", "y"), ("q", "a", "y"))
    ]
    assert found == [1, 2, 1, 1, 1]


def test_a_taken_number_is_refused_with_the_next_free_one() -> None:
    lock = Lock(versions={"p": {"net": {1: "x" * 64, 4: "y" * 64}}})
    with pytest.raises(SpecError) as raised:
        lock.number_for("p", "net", "z" * 64, wanted=1)
    assert "ask for 5" in str(raised.value.hint)
    assert "x" * 12 in str(raised.value.expected)
    assert lock.versions["p"]["net"] == {1: "x" * 64, 4: "y" * 64}


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
locks = st.builds(
    Lock,
    st.dictionaries(
        names.map(lambda name: f"package:{name}==1.10/a b/c.onnx"),
        st.builds(LockedSource, st.none() | st.sampled_from(["1.10", "1", "1e3", "2024.10.1"]), digests),
        max_size=3,
    ),
    st.dictionaries(
        names,
        st.dictionaries(names, st.dictionaries(st.integers(1, 2**62), digests, min_size=1, max_size=3), max_size=3),
        max_size=3,
    ),
    st.dictionaries(
        names,
        st.dictionaries(
            names, st.dictionaries(names, st.just(-1) | st.integers(1, 9), min_size=1, max_size=2), min_size=1
        ),
        max_size=2,
    ),
)


@given(locks)
def test_what_is_written_is_read_again_and_written_only_once(
    tmp_path_factory: pytest.TempPathFactory, lock: Lock
) -> None:
    path = tmp_path_factory.mktemp("lock") / "forge.lock"
    assert write_lock(path, lock)
    first = path.read_bytes()
    again = read_lock(path)
    assert again == lock
    assert not write_lock(path, again)
    path.unlink()
    write_lock(path, again)
    assert path.read_bytes() == first


def test_the_order_of_building_does_not_show(tmp_path: Path) -> None:
    for name, order in (("a", ("x", "y")), ("b", ("y", "x"))):
        lock = Lock()
        for folder in order:
            lock.number_for("p", folder, folder * 64)
        write_lock(tmp_path / name, lock)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "forge.lock") == Lock()


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            "lockVersion: 1\nversions:\n<<<<<<< HEAD\n  p: {}\n=======\n  q: {}\n>>>>>>> b\n",
            "unresolved merge conflict",
            3,
        ),
        ("lockVersion: 2\n", "does not know", 1),
        ("versions: {}\n", "does not know", 1),
        ("", "empty", None),
        ("lockVersion: 1\nversions: {p: {net: {one: abc}}}\n", "damaged", None),
        ("lockVersion: 1\nversions: {p: [net]}\n", "damaged", None),
        ("lockVersion: 1\nsources: {a: {version: '1'}}\n", "damaged", None),
        ("lockVersion: 1\nversions: {p: {net: {1: a, 1: b}}}\n", "stands twice", 2),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str, message: str, line: int | None) -> None:
    path = tmp_path / "forge.lock"
    path.write_text(text)
    with pytest.raises(SpecError, match=message) as raised:
        read_lock(path)
    assert raised.value.place is not None
    assert raised.value.place.file == path
    assert raised.value.place.line == line
    assert path.read_text() == text


def test_the_lock_stands_beside_its_spec() -> None:
    assert lock_path(Path("a/forge.yaml")) == Path("a/forge.lock")
    assert lock_path(Path("a/other.yaml")) == Path("a/other.lock")
