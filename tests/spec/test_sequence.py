from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tritonforge.spec.sequence import SequenceSpec


def test_the_short_form_of_a_state_is_its_output() -> None:
    spec = SequenceSpec.model_validate({"states": {"h": "hn", "c": {"output": "cn", "batch_axis": 1}}})
    assert {name: (state.output, state.batch_axis) for name, state in spec.states.items()} == {
        "h": ("hn", None),
        "c": ("cn", 1),
    }


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({}, "a sequence has `states`, a `context` or `controls`"),
        ({"constants": {"sr": 16000}}, "a sequence has `states`"),
        ({"states": {"a": "z", "b": "z"}}, "one output is the next state of two inputs"),
        ({"states": {"a": "z"}, "constants": {"a": 1}}, "'a' has two roles"),
        ({"context": {"a": 1}, "controls": {"start": "a"}}, "'a' has two roles"),
        ({"context": {"a": 0}}, "greater than or equal to 1"),
        ({"states": {"a": "z"}, "controls": {"begin": "b"}}, "'start', 'end', 'ready' or 'correlation'"),
        ({"states": {"a": "z"}, "idle_s": 0}, "greater than 0"),
        ({"states": {"a": "z"}, "requests": 1}, "greater than or equal to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        SequenceSpec.model_validate(stated)
    assert words in str(raised.value)
