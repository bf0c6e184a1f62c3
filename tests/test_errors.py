from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge import errors
from tritonforge.errors import CheckFailed, ExitCode, ForgeError, InternalError, Place, did_you_mean, from_json

CLASSES = [
    (errors.CheckFailed, 1),
    (errors.UsageError, 2),
    (errors.SpecError, 2),
    (errors.EnvironmentLacks, 3),
    (errors.Inconclusive, 4),
    (errors.Interrupted, 5),
    (errors.InternalError, 70),
]


@pytest.mark.parametrize(("cls", "code"), CLASSES, ids=lambda item: getattr(item, "__name__", item))
def test_every_error_has_the_exit_code_of_the_design(cls: type[ForgeError], code: int) -> None:
    assert cls("x").exit_code == ExitCode(code)


def test_the_table_names_every_subclass() -> None:
    assert {cls for cls, _ in CLASSES} == set(ForgeError.__subclasses__())


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (Place(), ""),
        (Place(Path("a.yaml")), "a.yaml"),
        (Place(Path("a.yaml"), 3), "a.yaml:3"),
        (Place(Path("a.yaml"), 3, "models.a"), "a.yaml:3: models.a"),
        (Place(None, 3), "line 3"),
        (Place(None, None, "models.a"), "models.a"),
    ],
)
def test_a_place_reads_as_editors_understand_it(place: Place, text: str) -> None:
    assert str(place) == text


def test_a_message_says_what_where_expected_found_and_what_to_do() -> None:
    error = CheckFailed(
        "it is bad", place=Place(Path("f"), 7), expected="good", found="bad", hint="mend it", details=["also this"]
    )
    assert str(error).splitlines() == [
        "it is bad",
        "  at f:7",
        "  expected: good",
        "  found: bad",
        "  also this",
        "  hint: mend it",
    ]


texts = st.none() | st.text(max_size=20)
places = st.builds(
    Place,
    st.none() | st.just(Path("some/file.yaml")),
    st.none() | st.integers(1, 9999),
    st.none() | st.text(min_size=1, max_size=9),
)
any_error = st.builds(
    lambda cls, message, place, expected, found, hint, details: cls(
        message, place=place, expected=expected, found=found, hint=hint, details=details
    ),
    st.sampled_from([cls for cls, _ in CLASSES]),
    st.text(max_size=30),
    places,
    texts,
    texts,
    texts,
    st.lists(st.text(max_size=9), max_size=3),
)


@given(any_error)
def test_an_error_crosses_a_process_boundary_unchanged(error: ForgeError) -> None:
    for copy in (from_json(json.loads(json.dumps(error.to_json()))), pickle.loads(pickle.dumps(error))):
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.to_json() == error.to_json()


def test_an_unknown_error_becomes_an_internal_one() -> None:
    error = from_json({"error": "FromTheFuture", "message": "hm", "details": "no list"})
    assert isinstance(error, InternalError)
    assert error.message == "hm"
    assert error.details == ()


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("souce", ["source", "format"], "did you mean 'source'?"),
        ("zzz", ["b", "a"], "known here: a, b"),
        ("zzz", [f"name{n}" for n in range(40)], None),
        ("zzz", [], None),
    ],
)
def test_a_hint_names_the_nearest_word_or_the_few_that_there_are(word: str, known: list[str], hint: str | None) -> None:
    assert did_you_mean(word, known) == hint
