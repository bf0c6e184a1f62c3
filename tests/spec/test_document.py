from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.errors import SpecError
from tritonforge.spec import document
from tritonforge.spec.document import Document, dotted, merge, parse, read

FILE = Path("forge.yaml")

leaves = st.booleans() | st.integers(-999, 999) | st.text("ab:{}# ${", max_size=6) | st.floats(-9, 9)
keys = st.sampled_from(["a", "b", "c", "1", "true"])
trees = st.dictionaries(
    keys,
    st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    ),
    max_size=4,
).filter(bool)


def of(data: dict[str, object]) -> Document:
    return parse(yaml.safe_dump(data), FILE)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += paths(item, (*path, index))
    return found


@given(trees)
def test_what_yaml_says_is_what_is_read_and_every_value_has_a_line(data: dict[str, object]) -> None:
    made = of(data)
    assert made.data == data
    lines = len(yaml.safe_dump(data).splitlines())
    for path in paths(data):
        place = made.place(path)
        assert place.line is not None and 1 <= place.line <= lines
        assert place.field == (dotted(path) or None)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "is empty", None),
        ("# only this\n", "is empty", None),
        ("- a\n", "is a list", 1),
        ("just text\n", "is a str", 1),
        ("a: 1\nb: {c: 2, c: 3}\n", "the key 'c' stands twice", 2),
        ("a: 1\na: 2\n", "the key 'a' stands twice", 2),
        ("1: a\n'1': b\n", "the key '1' stands twice", 2),
        ("on: a\n", "a key must be text", 1),
        ("~: a\n", "a key must be text", 1),
        ("1.5: a\n", "a key must be text", 1),
        ("x: &x {a: 1}\ny:\n  <<: *x\n", "merge keys are not taken", 3),
        ("a: [1\nb: 2\n", "not valid YAML", 2),
        ("a: 1\n\tb: 2\n", "not valid YAML", 2),
        ("a: !!python/object/apply:os.system [echo]\n", "tags are not taken", 1),
        ("a:\n  b: !mine {c: 1}\n", "tags are not taken", 2),
        ("a: !!python/name:os.system x\n", "not valid YAML", 1),
        ("a: .inf\n", "a number must be finite", 1),
        ("a:\n  b: .nan\n", "a number must be finite", 2),
        ("a: &x [*x]\n", "nested too deeply", None),
        ("a: " + "[" * 3000 + "]" * 3000 + "\n", "forge.yaml is n", None),
        ("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n", "unresolved merge conflict", 1),
        ("a:\n  b: 1\n<<<<<<< HEAD\n  c: 1\n=======\n  c: 2\n>>>>>>> theirs\n", "unresolved merge conflict", 3),
        ("a: 1\n---\nb: 2\n", "not valid YAML", 2),
    ],
)
def test_what_is_no_spec_is_refused_where_it_stands(text: str, message: str, line: int | None) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        parse(text, FILE)
    assert raised.value.place is not None
    assert raised.value.place.file == FILE
    if line is not None:
        assert raised.value.place.line == line


def test_dates_and_binaries_are_the_text_that_was_written() -> None:
    assert parse("a: 2024-10-01\nb: !!binary aGk=\n", FILE).data == {"a": "2024-10-01", "b": "aGk="}


def test_a_few_lines_cannot_stand_for_billions_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_VALUES", 5000)
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(SpecError, match="more than 5000 values"):
        parse(laughs, FILE)


class TestFiles:
    def test_a_missing_file_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"there is no forge\.yaml") as raised:
            read(tmp_path / "forge.yaml")
        assert "tritonforge init" in str(raised.value.hint)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="is a folder"):
            read(tmp_path)

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"a: \xff\xfe")
        with pytest.raises(SpecError, match="not UTF-8"):
            read(tmp_path / "f")

    def test_size_is_bounded(self, tmp_path: Path) -> None:
        with (tmp_path / "f").open("wb") as stream:
            stream.truncate(document.MAX_BYTES + 1)
        with pytest.raises(SpecError, match="larger than 8 MiB"):
            read(tmp_path / "f")


class TestMerge:
    @given(trees)
    def test_merging_with_itself_changes_nothing(self, data: dict[str, object]) -> None:
        assert merge(of(data), of(data)).data == data

    @given(trees, trees, trees)
    def test_without_removals_the_grouping_does_not_matter(
        self, a: dict[str, object], b: dict[str, object], c: dict[str, object]
    ) -> None:
        # Replacing a mapping by something else forgets it, which is a removal too.
        def same_shape(x: object, y: object) -> bool:
            if isinstance(x, dict) != isinstance(y, dict):
                return False
            return not isinstance(x, dict) or all(same_shape(x[k], y[k]) for k in x.keys() & y.keys())  # type: ignore[index]

        if same_shape(a, b) and same_shape(b, c) and same_shape(a, c):
            left = merge(merge(of(a), of(b)), of(c)).data
            right = merge(of(a), merge(of(b), of(c))).data
            assert left == right

    @given(trees, trees)
    def test_what_lies_on_top_wins_and_nothing_else_is_lost(self, a: dict[str, object], b: dict[str, object]) -> None:
        made = merge(of(a), of(b)).data
        assert made.keys() == a.keys() | b.keys()
        for key in b:
            if not (isinstance(a.get(key), dict) and isinstance(b[key], dict)):
                assert made[key] == b[key]
        for key in a.keys() - b.keys():
            assert made[key] == a[key]

    @given(trees)
    def test_null_removes(self, data: dict[str, object]) -> None:
        assert merge(of(data), of(dict.fromkeys(data))).data == {}

    def test_neither_document_is_changed(self) -> None:
        base, over = of({"a": {"b": 1}}), of({"a": {"c": 2}})
        merge(base, over).data["a"]["d"] = 3
        assert (base.data, over.data) == ({"a": {"b": 1}}, {"a": {"c": 2}})

    def test_places_are_those_of_the_file_that_won(self) -> None:
        base = parse("a:\n  b: 1\n  c: 2\n", Path("base"))
        over = parse("# x\n\n\na:\n  c: 3\n  d: [4]\n", Path("over"))
        made = merge(base, over)
        assert [
            (str(place.file), place.line) for place in map(made.place, (("a", "b"), ("a", "c"), ("a", "d", 0)))
        ] == [
            ("base", 2),
            ("over", 5),
            ("over", 6),
        ]


@pytest.mark.parametrize(
    ("path", "text"),
    [((), ""), (("models", "a", "steps", 0, "model"), "models.a.steps[0].model"), ((0, "a"), "[0].a")],
)
def test_a_path_is_written_with_dots_and_indices(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


def test_a_date_that_is_none_is_text_and_a_number_without_end_is_refused() -> None:
    assert parse("a: 2024-13-01\n2024-13-02: 1\n", FILE).data == {"a": "2024-13-01", "2024-13-02": 1}
    with pytest.raises(SpecError, match="number") as raised:
        parse(f"b: 1\na: {'1' * 5000}\n", FILE)
    assert (raised.value.place.line, raised.value.place.field) == (2, "a")  # type: ignore[union-attr]
