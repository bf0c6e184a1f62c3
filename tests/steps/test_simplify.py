"""onnxslim makes graphs smaller and changes neither signature nor answers, also with weights in external data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, golden_config, onnx_config
from tritonforge.artifact.artifact import Artifact, FileEntry
from tritonforge.errors import CheckFailed, Place
from tritonforge.steps.onnx_files import refuse_large
from tritonforge.steps.step import Input

Import = Callable[..., Artifact]


def save_external(path: Path) -> dict[str, Path]:
    """Two identities and an addition of 1 kB of weights beside the model."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    weights = [making.constant("c", np.arange(256, dtype=np.float32))]
    made = making.model(nodes, [making.value("x", ["N", 256])], [making.value("y", ["N", 256])], weights)
    path.parent.mkdir(parents=True)
    onnx.save(made, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    return {"model.onnx": path, "weights.bin": path.with_name("weights.bin")}


def test_the_graph_shrinks_and_the_answers_stay(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.with_dead_weight())
    made = run("simplify", {}, inputs={"model": source})
    assert made.metadata["nodes"] == {"before": 3, "after": 1}
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    parity = run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert parity.metadata["max_abs"] == 0


def test_what_is_simple_already_keeps_its_very_bytes(run: Run, import_onnx: Import) -> None:
    source = import_onnx(making.batched_add())
    assert run("simplify", {}, inputs={"model": source}).files == source.files


def test_weights_stay_beside_the_model_and_other_files_come_along(run: Run, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\n")
    sources = {**save_external(tmp_path / "src" / "net.onnx"), "names/labels.txt": labels}
    source = run("import-onnx", onnx_config(), sources=sources)
    made = run("simplify", {}, inputs={"model": source})
    assert sorted(made.files) == ["model.onnx", "model.onnx.data", "names/labels.txt"]
    assert made.metadata["external"] == ["model.onnx.data"]
    assert made.files["model.onnx.data"].size >= 1024 > made.files["model.onnx"].size
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    again = run("simplify", {}, inputs={"model": made})
    assert again.digest == run("simplify", {}, inputs={"model": made}).digest


def test_more_than_a_message_can_hold_is_refused_by_its_size() -> None:
    files = {"model.onnx": FileEntry("0" * 64, 1000), "weights.bin": FileEntry("1" * 64, 3 << 30)}
    source = Input(Artifact("onnx", files, None, {"external": ["weights.bin"]}), Path("somewhere"))
    with pytest.raises(CheckFailed, match=r"`simplify` cannot hold a model of 3\.0 GiB") as raised:
        refuse_large(source, "simplify", "drop it")
    assert raised.value.place == Place(Path("somewhere/model.onnx"))
