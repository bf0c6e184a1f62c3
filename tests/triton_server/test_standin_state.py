"""The stand-ins keep implicit state as Triton's core does for native backends."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tritonforge.triton.embedded.standins import SOURCES

CONFIG = {
    "max_batch_size": 4,
    "input": [{"name": "x"}],
    "output": [{"name": "y", "data_type": "TYPE_FP32"}],
    "sequence_batching": {
        "max_sequence_idle_microseconds": 5_000_000,
        "state": [{"input_name": "s", "output_name": "s_after", "data_type": "TYPE_FP32", "dims": [1]}],
    },
}
START, END = 1, 2


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array

    def is_cpu(self) -> bool:
        return True


class Request:
    """A request as the Python backend gives it: the core's state input holds the initial value in every one."""

    def __init__(self, sequence: int | str, value: float, flags: int = 0) -> None:
        self.sequence, self.value, self._flags = sequence, value, flags

    def correlation_id(self) -> int | str:
        return self.sequence

    def flags(self) -> int:
        return self._flags

    def requested_output_names(self) -> set[str]:
        return {"y"}

    def inputs(self) -> list[Tensor]:
        return [Tensor("x", np.float32([[self.value]])), Tensor("s", np.float32([[100]]))]


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Any = None) -> None:
        self.output_tensors, self.error = output_tensors, error


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``standin_state`` and ``standin_requests`` as they run beside a backend."""
    fake = types.ModuleType("triton_python_backend_utils")
    fake.Tensor, fake.InferenceResponse, fake.TritonError = Tensor, Response, str  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    monkeypatch.syspath_prepend(str(SOURCES))
    names = ("standin_config", "standin_requests", "standin_state")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import standin_requests
    import standin_state

    yield types.SimpleNamespace(
        respond=standin_requests.respond, States=standin_state.States, of=standin_state.states_of
    )
    for name in names:
        sys.modules.pop(name, None)


class Model:
    """``y = s + x``, which is the next state too; it counts its runs and fails for negative inputs."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, feeds: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        self.rows.append(len(feeds["x"]))
        if (feeds["x"] < 0).any():
            raise ValueError("negative")
        total = feeds["s"] + feeds["x"]
        return dict.fromkeys(names, total)


def ask(standin: Any, states: Any, model: Model, *requests: Request) -> list[Any]:
    found = standin.respond(list(requests), CONFIG, model, states)
    return [
        response.error if response.error is not None else float(response.output_tensors[0].as_numpy()[0, 0])
        for response in found
    ]


def test_each_sequence_has_its_own_state_in_a_shared_batch(standin: Any) -> None:
    states, model = standin.of(CONFIG), Model()
    assert ask(standin, states, model, Request(7, 1, START), Request("a", 2, START)) == [101, 102]
    assert ask(standin, states, model, Request("a", 10), Request(7, 20)) == [112, 121]
    assert ask(standin, states, model, Request(7, 1)) == [122]
    assert model.rows == [2, 2, 1]


def test_a_start_takes_the_initial_value_again_and_an_end_forgets(standin: Any) -> None:
    states, model = standin.of(CONFIG), Model()
    assert ask(standin, states, model, Request(7, 1, START)) == [101]
    assert ask(standin, states, model, Request(7, 5, START)) == [105]
    assert ask(standin, states, model, Request(7, 1, END)) == [106]
    assert states.kept == {}
    assert ask(standin, states, model, Request(8, 1, START | END)) == [101]
    assert states.kept == {}


def test_a_request_that_fails_leaves_the_state_as_it_was(standin: Any) -> None:
    states, model = standin.of(CONFIG), Model()
    ask(standin, states, model, Request(1, 1, START), Request(2, 2, START))
    assert ask(standin, states, model, Request(1, -1), Request(2, 2)) == ["negative", 104]
    assert ask(standin, states, model, Request(1, 1), Request(2, 2)) == [102, 106]


def test_idle_sequences_are_forgotten(standin: Any) -> None:
    now = [0.0]
    states, model = standin.States(CONFIG, clock=lambda: now[0]), Model()
    ask(standin, states, model, Request(1, 1, START))
    now[0] = 14.0
    ask(standin, states, model, Request(2, 1, START))
    assert set(states.kept) == {1, 2}
    now[0] = 16.0
    ask(standin, states, model, Request(2, 1))
    assert set(states.kept) == {2}


def test_requests_that_fill_idle_slots_keep_nothing(standin: Any) -> None:
    states, model = standin.of(CONFIG), Model()
    ask(standin, states, model, Request(0, 1), Request("", 1))
    assert states.kept == {}


def test_a_state_of_another_type_is_an_error(standin: Any) -> None:
    states = standin.of(CONFIG)

    def run(feeds: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {"y": feeds["x"], "s_after": feeds["s"].astype(np.float64)}

    (response,) = standin.respond([Request(1, 1, START)], CONFIG, run, states)
    assert "state 's_after': the configuration says TYPE_FP32, the model returned float64" in response.error


def test_a_model_without_states_has_none(standin: Any) -> None:
    assert standin.of({"sequence_batching": {"state": []}}) is None
    assert standin.of({}) is None
