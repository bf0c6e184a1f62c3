from __future__ import annotations

import threading
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonforge.actions.sequences import ask, emulated, slots
from tritonforge.artifact.tensors import Case
from tritonforge.errors import CheckFailed


class Summing:
    """A server whose model answers the sum of all that its sequence sent; it checks where flags are."""

    def __init__(self, fail: float | None = None) -> None:
        self.sums: dict[Any, Any] = {}
        self.calls: list[tuple[Any, bool, bool]] = []
        self.open = 0
        self.most = 0
        self.fail = fail
        self.lock = threading.Lock()

    def infer(self, model: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
        name, start, end = more["sequence_id"], more["sequence_start"], more["sequence_end"]
        with self.lock:
            self.calls.append((name, start, end))
            assert start != (name in self.sums), "a sequence starts once"
            if self.fail is not None and (inputs["x"] == self.fail).any():
                raise CheckFailed("no")
            self.sums[name] = self.sums.get(name, 0) + inputs["x"]
            self.most = max(self.most, len(self.sums))
            return {"y": self.sums.pop(name) if end else self.sums[name]}


def case(name: str, shape: tuple[int, ...], seed: int) -> Case:
    values = np.random.default_rng(seed).integers(0, 9, shape).astype(np.float32)
    return Case(name, {"x": values}, {"y": np.cumsum(values, axis=0)}, sequence=True)


def asked(server: Summing, cases: list[Case], **more: Any) -> list[Any]:
    return ask(server, "m", 1, cases, {"x": "FP32"}, protocol="grpc", **more)  # type: ignore[arg-type]


def test_rows_of_a_batch_are_sequences_side_by_side() -> None:
    server = Summing()
    cases = [case("one", (4, 1, 2), 0), case("three", (4, 3, 2), 1)]
    for known, answer in asked(server, cases, batched=True, at_once=100, first_id=50):
        np.testing.assert_array_equal(answer["y"], known.outputs["y"])
    assert server.most == 4
    assert {name for name, _, _ in server.calls} == {50, 51, 52, 53}
    assert all(start == (index < 4) for index, (_, start, _) in enumerate(server.calls)), "in lockstep"


def test_no_more_run_at_once_than_the_model_takes() -> None:
    server = Summing()
    cases = [case("a", (3, 3, 2), 0)]
    ((_, answer),) = asked(server, cases, batched=True, at_once=1)
    np.testing.assert_array_equal(answer["y"], cases[0].outputs["y"])
    assert server.most == 1


def test_cases_of_a_model_without_a_batch_run_side_by_side_too() -> None:
    server = Summing()
    cases = [case("a", (3, 2), 0), case("b", (5, 2), 1)]
    for known, answer in asked(server, cases, batched=False, at_once=2):
        np.testing.assert_array_equal(answer["y"], known.outputs["y"])
    assert server.most == 2


def test_a_sequence_that_fails_leaves_the_others_theirs() -> None:
    bad = Case("bad", {"x": np.float32([[[1]], [[77]], [[1]]])}, {}, sequence=True)
    good = case("good", (3, 1, 1), 2)
    server = Summing(fail=77)
    (_, wrong), (_, right) = asked(server, [bad, good], batched=True, at_once=8, first_id=1)
    assert isinstance(wrong, CheckFailed)
    np.testing.assert_array_equal(right["y"], good.outputs["y"])
    assert [name for name, _, _ in server.calls].count(1) == 2, "nothing is sent after the failure"


def parse(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def test_slots_are_the_schedulers() -> None:
    assert slots(parse("sequence_batching { oldest { max_candidate_sequences: 9 } }")) == 9
    assert slots(parse("max_batch_size: 4 sequence_batching { oldest { } }")) == 4
    assert slots(parse("max_batch_size: 4 sequence_batching { direct { } }")) == 4
    assert slots(parse("sequence_batching { }")) == 1


def test_only_the_embedded_servers_stand_in_keeps_states() -> None:
    config = parse('sequence_batching { state { input_name: "a" } }')
    assert "kept by the stand-in backend" in str(emulated(config, "embedded"))
    assert emulated(config, "container") is None
    assert emulated(parse("sequence_batching { }"), "embedded") is None
