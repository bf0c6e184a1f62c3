"""``stateful`` gives an ONNX graph its states; ``golden-sequences`` and ``parity`` prove them request after request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps import making_stateful as making
from steps.conftest import Run, golden_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.sequence import split
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import LocalStore
from tritonforge.artifact.tensors import read_cases
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.sequences import CarryingRunner, SourceSequences
from tritonforge.steps.optimize.stateful import in_one_order

Import = Callable[..., Artifact]


def config(sequence: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The configuration of ``stateful``; what ``sequence`` leaves out is empty."""
    empty = {"states": {}, "context": {}, "constants": {}, "controls": {}, "requests": 4}
    stated = making.SEQUENCE if sequence is None else {**empty, **sequence}
    return {"sequence": stated, "inputs": {}, "outputs": {}, "batched": None, "axes": {}, "ranges": {}, **more}


def placed(store: LocalStore, artifact: Artifact, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path, entry in artifact.files.items():
        (folder / path).write_bytes(store.blob(entry.sha256).read_bytes())
    return folder


@pytest.fixture
def served(import_onnx: Import, run: Run) -> Callable[..., tuple[Artifact, Artifact]]:
    """The source's artifact and the one with states."""

    def make(model: onnx.ModelProto, sequence: Mapping[str, Any] | None = None, **more: Any) -> Any:
        source = import_onnx(model, batched=False)
        return source, run("stateful", config(sequence, **more), inputs={"model": source})

    return make


def session(store: LocalStore, artifact: Artifact) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(store.blob(artifact.files["model.onnx"].sha256).read_bytes())


@pytest.mark.parametrize("inside", [False, True])
def test_clients_send_chunks_and_the_graph_has_its_states_batch_first(
    served: Any, store: LocalStore, inside: bool
) -> None:
    _, made = served(making.remembering(inside=inside))
    assert made.metadata["states"] == [
        {"input": "h_batched", "output": "h_batched_next", "datatype": "FP32", "dims": [2, 3]},
        {"input": "x_context", "output": "x_context_next", "datatype": "FP32", "dims": [2]},
    ]
    assert made.signature.batched
    assert [str(tensor) for tensor in made.signature.inputs][1:] == [
        "h_batched: FP32[N,2,3]",
        "x_context: FP32[N,2]",
    ]
    opened = session(store, made)
    assert [item.name for item in opened.get_inputs()] == ["x", "h_batched", "x_context"]
    chunks = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    state, context = np.zeros((3, 2, 3), np.float32), np.zeros((3, 2), np.float32)
    found = []
    for chunk in chunks:
        y, state, context = opened.run(
            ["y", "h_batched_next", "x_context_next"], {"x": chunk, "h_batched": state, "x_context": context}
        )
        found.append(y)
    np.testing.assert_allclose(np.stack(found), making.answers(chunks), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(context, chunks[-1][:, -2:])


def test_equal_graphs_give_equal_bytes(served: Any) -> None:
    _, first = served(making.remembering())
    _, second = served(making.remembering())
    assert first.digest == second.digest


def test_the_source_request_after_request_is_the_reference_and_parity_holds(
    served: Any, run: Run, store: LocalStore, tmp_path: Path
) -> None:
    source, made = served(making.remembering(), inputs={"x": {"type": "FP32[4]"}})
    golden = run(
        "golden-sequences",
        golden_config(format="onnx", **config(inputs={"x": {"type": "FP32[4]"}})),
        inputs={"model": source},
    )
    cases = read_cases(placed(store, golden, tmp_path / "golden"))
    assert [(case.name, case.inputs["x"].shape, case.sequence) for case in cases.cases] == [
        ("batch1-small", (4, 1, 4), True),
        ("batch3-small", (4, 3, 4), True),
        ("batch4-small", (4, 4, 4), True),
    ]
    for case in cases.cases:
        np.testing.assert_allclose(case.outputs["y"], making.answers(case.inputs["x"]), rtol=1e-5, atol=1e-4)
        assert not np.array_equal(case.inputs["x"][0], case.inputs["x"][1]), "requests have values of their own"
    report = run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert report.metadata["comparisons"] == 3


def test_parity_finds_a_context_of_another_length(served: Any, run: Run) -> None:
    source, _ = served(making.remembering())
    other = {**making.SEQUENCE, "context": {"x": 3}}
    _, made = served(making.remembering(), other)
    golden = run("golden-sequences", golden_config(format="onnx", **config()), inputs={"model": source})
    with pytest.raises(CheckFailed, match="does not compute what its source computes"):
        run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})


def test_real_requests_come_from_files_with_the_requests_in_front(
    import_onnx: Import, run: Run, store: LocalStore, tmp_path: Path
) -> None:
    source = import_onnx(making.remembering(), batched=False)
    chunks = np.random.default_rng(1).standard_normal((7, 2, 4)).astype(np.float32)
    np.savez(tmp_path / "voices.npz", x=chunks)
    golden = run(
        "golden-sequences",
        golden_config(format="onnx", **config()),
        inputs={"model": source},
        sources={"voices.npz": tmp_path / "voices.npz"},
    )
    case = read_cases(placed(store, golden, tmp_path / "golden")).cases[-1]
    assert case.name == "voices"
    np.testing.assert_allclose(case.outputs["y"], making.answers(chunks), rtol=1e-5, atol=1e-5)


def test_states_that_triton_would_swap_get_other_names(served: Any, run: Run) -> None:
    sequence = {"states": {"a": {"output": "z"}, "b": {"output": "c"}}}
    source, made = served(making.crossing(), sequence)
    pairs = [(state["input"], state["output"]) for state in made.metadata["states"]]
    assert pairs == [("state0", "state0_next"), ("state1", "state1_next")]
    assert not in_one_order([("a", "z"), ("b", "c")])
    assert in_one_order(pairs)
    golden = run("golden-sequences", golden_config(format="onnx", **config(sequence)), inputs={"model": source})
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})


def test_a_model_without_a_batch_keeps_its_shapes(served: Any, run: Run, store: LocalStore) -> None:
    source, made = served(making.remembering(1))
    assert not made.signature.batched
    assert [str(tensor) for tensor in made.signature.inputs] == [
        "x: FP32[1,4]",
        "h: FP32[2,1,3]",
        "x_context: FP32[1,2]",
    ]
    golden = run("golden-sequences", golden_config(format="onnx", **config()), inputs={"model": source})
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    _, alone = served(making.remembering(), batched=False)
    assert [state["dims"] for state in alone.metadata["states"]] == [[2, 1, 3], [1, 2]]


def test_rows_that_share_a_state_are_no_sequences(served: Any) -> None:
    with pytest.raises(CheckFailed, match="cannot share a batch") as raised:
        served(making.sharing(), {"states": {"h": {"output": "h_after"}}})
    assert "batched: false" in str(raised.value.hint)


def test_a_graph_that_is_told_where_a_sequence_starts(served: Any, run: Run, store: LocalStore, tmp_path: Path) -> None:
    sequence = {"states": {"h": {"output": "h_after"}}, "controls": {"start": "START"}}
    source, made = served(making.controlled(), sequence)
    assert made.metadata["controls"] == [{"kind": "start", "name": "START", "datatype": "FP32"}]
    golden = run("golden-sequences", golden_config(format="onnx", **config(sequence)), inputs={"model": source})
    for case in read_cases(placed(store, golden, tmp_path / "golden")).cases:
        np.testing.assert_allclose(case.outputs["y"], np.cumsum(case.inputs["x"], axis=0), rtol=1e-5, atol=1e-5)
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        ({"states": {"hh": {"output": "h_after"}}}, "the model has no input 'hh'"),
        ({"states": {"h": {"output": "h_afte"}}}, "the model has no output 'h_afte'"),
        ({"states": {"h": {"output": "y"}}}, "'y' cannot be the next state of 'h'"),
        ({"states": {"h": {"output": "h_after", "batch_axis": 2}}}, "axis 2 of the state 'h' is no batch axis"),
        ({"states": {"x": {"output": "y"}}}, "a dynamic axis besides the batch"),
        ({"context": {"h": 2}}, "the input 'h' cannot have a context"),
        ({"constants": {"rate": "fast"}}, "`sequence.constants.rate` is no value of the input"),
        ({"constants": {"rate": 1.5}}, "`sequence.constants.rate` is no value of the input"),
        ({"constants": {"rate": [1, 2]}}, "`sequence.constants.rate` has another shape"),
        ({"controls": {"start": "rate"}}, "the input 'rate' cannot be the control `start`"),
    ],
)
def test_what_cannot_be_a_state_is_refused_by_name(served: Any, sequence: Mapping[str, Any], words: str) -> None:
    with pytest.raises(CheckFailed) as raised:
        served(making.remembering(), sequence)
    assert words in str(raised.value)


class Last:
    """A source that answers the sum of its whole input."""

    title = "a sum"

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"].sum(axis=-1, keepdims=True)}


@settings(max_examples=60, deadline=None)
@given(
    context=st.integers(1, 9),
    samples=st.integers(1, 7),
    requests=st.integers(1, 6),
    batch=st.integers(1, 3),
)
def test_the_context_is_the_end_of_everything_sent_so_far(
    context: int, samples: int, requests: int, batch: int
) -> None:
    """Whatever the lengths: request k sees its own chunk and the ``context`` samples before it, zeros before all."""
    signature = Signature((Tensor("x", "FP32", ("N", "?x.1")),), (Tensor("y", "FP32", ("N", 1)),), False)
    sequence = {"states": {}, "context": {"x": context}, "constants": {}, "controls": {}}
    parts = split(signature, sequence, None, Place())
    chunks = np.random.default_rng(0).integers(0, 9, (requests, batch, samples)).astype(np.float32)
    found = SourceSequences(Last(), parts, {}).run({"x": chunks})["y"]
    for row in range(batch):
        stream = np.concatenate([np.zeros(context), chunks[:, row].reshape(-1)])
        for request in range(requests):
            window = stream[request * samples : request * samples + context + samples]
            assert found[request, row, 0] == window.sum()


def test_a_state_that_changes_its_shape_is_refused() -> None:
    class Growing:
        title = "growing"

        def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            return {"y": inputs["x"], "after": np.zeros((1, 4), np.float32)}

    state = {"input": "before", "output": "after", "datatype": "FP32", "dims": [3]}
    runner = CarryingRunner(Growing(), {"states": [state], "sequence_batched": True})
    with pytest.raises(CheckFailed, match="the state 'before' changes its shape"):
        runner.run({"x": np.zeros((2, 1, 5), np.float32)})
