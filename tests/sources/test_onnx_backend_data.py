"""ONNX's own backend tests: each model is read and runs as its authors say, or is refused for a named reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.onnx_session import open_session, run_session
from tritonforge.sources.onnx_file import OLDEST_OPSET, OnnxFacts, facts, parse

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SERIES = ("simple", "pytorch-operator", "pytorch-converted")

REASONS = (
    "is a sequence",
    "is a map",
    "is an optional value",
    "which Triton cannot carry",
    "is not supported",  # an opset
    "operators that ONNX Runtime does not have",
    "cannot load",  # ONNX Runtime's own words, for what is newer than it
)
"""What a refusal may say."""


def read_values(folder: Path, kind: str, names: Sequence[str]) -> dict[str, Any]:
    found = {}
    for index, name in enumerate(names):
        tensor = TensorProto()
        tensor.ParseFromString((folder / f"{kind}_{index}.pb").read_bytes())
        found[name] = numpy_helper.to_array(tensor)
    return found


def array(value: Any) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def close(name: str, found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    assert found.shape == wanted.shape, name
    if found.dtype.kind in "OSU":
        assert [str(item) for item in found.reshape(-1)] == [
            item.decode() if isinstance(item, bytes) else str(item) for item in wanted.reshape(-1)
        ]
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=name)


def hold(found: OnnxFacts, path: Path, cases: Iterator[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    session = open_session(path, optimise=False, place=Place(path))
    inputs = {tensor.name: tensor for tensor in found.signature.inputs}
    for feeds, wanted in cases:
        assert feeds.keys() <= inputs.keys()
        answers = run_session(session, feeds, Place(path))
        assert list(answers) == [tensor.name for tensor in found.signature.outputs]
        for name, value in wanted.items():
            close(name, answers[name], value)


def stored_cases(path: Path, found: OnnxFacts) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for folder in sorted(path.parent.glob("test_data_set_*")):
        inputs = [tensor.name for tensor in found.signature.inputs]
        outputs = [tensor.name for tensor in found.signature.outputs]
        yield read_values(folder, "input", inputs), read_values(folder, "output", outputs)


@pytest.mark.parametrize("series", SERIES)
def test_models_of_the_series_run_or_say_why_not(series: str) -> None:
    outcomes: Counter[str] = Counter()
    for folder in sorted((DATA / series).iterdir()):
        path = folder / "model.onnx"
        try:
            found = facts(parse(path), Place(path))
            hold(found, path, stored_cases(path, found))
        except CheckFailed as error:
            reason = next((text for text in REASONS if text in error.message), None)
            assert reason is not None, (folder.name, str(error))
            assert error.place == Place(path)
            outcomes[reason] += 1
        else:
            outcomes["ran"] += 1
    wanted = {"simple": 14, "pytorch-operator": 1, "pytorch-converted": 1}
    assert outcomes["ran"] >= wanted[series], outcomes


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_is_read_and_runs_where_the_installed_onnx_runtime_knows_it(opset: int, tmp_path: Path) -> None:
    shape = ["N", 4]
    nodes = [helper.make_node("Add", ["x", "c"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=1)]
    weights = [making.constant("c", np.float32([1, 2, 3, 4]))]
    made = making.model(nodes, [making.value("x", shape)], [making.value("y", shape)], weights, opset=opset)
    path = making.save(tmp_path / "model.onnx", made)
    found = facts(parse(path), Place(path))
    assert (found.opset, [str(tensor) for tensor in found.signature.outputs]) == (opset, ["y: FP32[N,4]"])
    x = np.zeros((2, 4), np.float32)
    e = np.exp([1, 2, 3, 4])
    try:
        hold(found, path, iter([({"x": x}, {"y": np.stack([e / e.sum()] * 2).astype(np.float32)})]))
    except CheckFailed as error:
        assert opset > 22, str(error)
        assert "cannot load model.onnx" in error.message


LIGHT = sorted((DATA / "light").glob("light_*.onnx"))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_networks_are_read(path: Path) -> None:
    try:
        found = facts(parse(path), Place(path))
    except CheckFailed as error:
        assert "is not supported" in error.message
        return
    assert len(found.signature.inputs) == 1
    assert found.signature.outputs


@pytest.mark.slow
def test_every_node_model_runs_or_says_why_not(tmp_path: Path) -> None:
    from onnx.backend.test.case.node import collect_testcases

    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for case in collect_testcases(None):
        path = tmp_path / "model.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            found = facts(parse(path), Place(path))
            inputs = [tensor.name for tensor in found.signature.inputs]
            outputs = [tensor.name for tensor in found.signature.outputs]
            cases = [
                (
                    dict(zip(inputs, map(array, feeds), strict=False)),
                    dict(zip(outputs, map(array, answers), strict=True)),
                )
                for feeds, answers in case.data_sets
            ]
            hold(found, path, iter(cases))
        except CheckFailed as error:
            reason = next((text for text in (*REASONS, "cannot run") if text in error.message), None)
            assert reason is not None, (case.name, str(error))
            outcomes[reason] += 1
        except AssertionError:
            wrong.append(case.name)
        else:
            outcomes["ran"] += 1
    # Where the installed ONNX Runtime computes something else than ONNX's reference, that is not ours to mend.
    print(outcomes, wrong)
    assert outcomes["ran"] > 1000
    assert outcomes["is a sequence"] > 10
    assert len(wrong) < 60
