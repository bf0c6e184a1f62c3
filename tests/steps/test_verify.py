from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, golden_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.artifact.tensors import CaseSet, read_cases
from tritonforge.errors import CheckFailed

Import = Callable[..., Artifact]


def cases_of(store: LocalStore, golden: Artifact, folder: Path) -> CaseSet:
    for path in golden.files:
        store.place(golden, path, folder / path)
    return read_cases(folder)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (making.batched_add, ["batch1-small", "batch3-small", "batch4-small"]),
        (making.dynamic_text, [f"batch{n}-{size}" for n in (1, 3, 4) for size in ("small", "large")]),
        (making.unbatched_add, ["small"]),
        (making.doubled_rows, ["small", "large"]),
    ],
)
def test_golden_cases_cover_batches_and_sizes_with_the_sources_answers(
    run: Run, import_onnx: Import, store: LocalStore, tmp_path: Path, make: Any, names: list[str]
) -> None:
    model = import_onnx(make())
    golden = run("golden", golden_config(), inputs={"model": model})
    found = cases_of(store, golden, tmp_path / "golden")
    assert golden.metadata["cases"] == names == [case.name for case in found.cases]
    assert "optimisations off" in found.reference
    if make is making.batched_add:
        for case, batch in zip(found.cases, (1, 3, 4), strict=True):
            assert case.inputs["x"].shape == (batch, 4)
            np.testing.assert_array_equal(case.outputs["y"], case.inputs["x"] + np.float32(1))


def test_golden_takes_seed_axes_and_ranges_from_the_spec(
    run: Run, import_onnx: Import, store: LocalStore, tmp_path: Path
) -> None:
    model = import_onnx(making.dynamic_text())
    config = golden_config(
        axes={"seq": [2, 5]}, ranges={"x": {"low": 3, "high": 4}}, batches=[2], tolerance={"abs": 0.5}
    )
    first, again, other = (run("golden", {**config, "seed": seed}, inputs={"model": model}) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    found = cases_of(store, first, tmp_path / "golden")
    assert [case.inputs["x"].shape for case in found.cases] == [(2, 2, 2), (2, 5, 2)]
    assert all(3 <= case.inputs["x"].min() <= case.inputs["x"].max() <= 4 for case in found.cases)
    assert found.tolerance == {"abs": 0.5}


def test_texts_have_golden_cases_too(run: Run, import_onnx: Import, store: LocalStore, tmp_path: Path) -> None:
    golden = run("golden", golden_config(), inputs={"model": import_onnx(making.text_in_text_out())})
    for case in cases_of(store, golden, tmp_path / "golden").cases:
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in case.outputs["SAME"].reshape(-1)]
        assert texts == case.inputs["TEXT"].reshape(-1).tolist()


def test_a_source_that_cannot_answer_says_what_to_declare(run: Run, import_onnx: Import) -> None:
    lookup = making.model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [making.value("ids", ["N", 1], making.INT64)],
        [making.value("y", ["N", 1, 2])],
        [making.constant("table", np.zeros((3, 2), np.float32))],
    )
    model = import_onnx(lookup, ranges={"ids": {"low": 0, "high": 2}})
    with pytest.raises(CheckFailed, match=r"cannot answer the generated case 'batch\d-small'") as raised:
        run("golden", golden_config(), inputs={"model": model})
    assert "golden.ranges" in str(raised.value.hint)
    assert run("golden", golden_config(ranges={"ids": {"low": 0, "high": 2}}), inputs={"model": model})


def test_real_inputs_alone_prove_what_generated_ones_cannot(
    run: Run, import_onnx: Import, store: LocalStore, tmp_path: Path
) -> None:
    """A shape must agree with what it reshapes: no range says that."""
    made = making.model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [making.value("x", [6]), making.value("shape", [2], making.INT64)],
        [making.value("y", ["rows", "columns"])],
    )
    model = import_onnx(made)
    with pytest.raises(CheckFailed, match="cannot answer") as raised:
        run("golden", golden_config(), inputs={"model": model})
    assert "generated: false" in str(raised.value.hint)
    np.savez(tmp_path / "real.npz", x=np.arange(6, dtype=np.float32), shape=np.int64([2, 3]))
    golden = run(
        "golden",
        golden_config(generated=False),
        inputs={"model": model},
        sources={"real.npz": tmp_path / "real.npz"},
    )
    (case,) = cases_of(store, golden, tmp_path / "golden").cases
    assert case.name == "real"
    assert case.outputs["y"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("axis", "taken"), [("n", True), (3, False)])
def test_a_file_of_inputs_may_have_no_elements_where_an_axis_is_dynamic(
    run: Run, import_onnx: Import, tmp_path: Path, axis: str | int, taken: bool
) -> None:
    made = making.model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], [making.value("x", [axis])], [making.value("y", [])]
    )
    np.savez(tmp_path / "none.npz", x=np.zeros(0, np.float32))
    task = {"inputs": {"model": import_onnx(made)}, "sources": {"none.npz": tmp_path / "none.npz"}}
    if taken:
        assert run("golden", golden_config(generated=False), **task).metadata["cases"] == ["none"]
        return
    with pytest.raises(CheckFailed, match="no array with values"):
        run("golden", golden_config(generated=False), **task)


class TestParity:
    def test_the_source_agrees_with_itself(self, run: Run, import_onnx: Import, store: LocalStore) -> None:
        model = import_onnx(making.batched_add())
        golden = run("golden", golden_config(), inputs={"model": model})
        parity = run("parity", {"tolerance": None}, inputs={"model": model, "golden": golden})
        report = json.loads(store.blob(parity.files["parity.json"].sha256).read_text())
        assert parity.metadata["comparisons"] == len(report["rows"]) == 3
        assert all(row["ok"] for row in report["rows"])
        assert report["tolerance"]["FP32"] == {"abs": 1e-4, "rel": 1e-3}

    @pytest.mark.parametrize(
        ("addend", "tolerance", "ok"),
        [
            (1.0, {"abs": 0.0}, True),
            (1.00001, None, True),
            (1.1, None, False),
            (1.1, {"abs": 0.2}, True),
            (1.1, {"abs": 0.05}, False),
            (1.1, {"cosine": 0.99}, True),
            (-9.0, {"cosine": 0.99}, False),
        ],
    )
    def test_a_model_that_computes_something_else_fails_beyond_its_tolerance(
        self, run: Run, import_onnx: Import, addend: float, tolerance: dict[str, float] | None, ok: bool
    ) -> None:
        golden = run("golden", golden_config(), inputs={"model": import_onnx(making.batched_add())})
        inputs = {"model": import_onnx(making.batched_add(addend)), "golden": golden}
        if ok:
            assert run("parity", {"tolerance": tolerance}, inputs=inputs).format == "parity"
            return
        with pytest.raises(CheckFailed, match="does not compute what its source computes") as raised:
            run("parity", {"tolerance": tolerance}, inputs=inputs)
        assert str(raised.value.found).startswith("batch1-small: y: ")
        assert sum(line.startswith("also: ") for line in raised.value.details) == 2
        assert "tolerance" in str(raised.value.hint)


class TestSimplify:
    def test_what_is_not_needed_goes_and_the_answers_stay(
        self, run: Run, import_onnx: Import, store: LocalStore
    ) -> None:
        model = import_onnx(making.with_dead_weight())
        slim = run("simplify", {}, inputs={"model": model})
        assert slim.metadata["nodes"] == {"before": 3, "after": 1}
        assert slim.signature == model.signature
        graph = onnx.load_from_string(store.blob(slim.files["model.onnx"].sha256).read_bytes()).graph
        assert [node.op_type for node in graph.node] == ["Add"]
        golden = run("golden", golden_config(), inputs={"model": model})
        assert run("parity", {"tolerance": None}, inputs={"model": slim, "golden": golden})

    def test_where_nothing_is_to_do_the_bytes_stay(self, run: Run, import_onnx: Import) -> None:
        model = import_onnx(making.batched_add())
        assert run("simplify", {}, inputs={"model": model}).files == model.files
