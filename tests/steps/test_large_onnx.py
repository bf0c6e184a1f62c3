"""A model whose weights no protobuf message can hold is imported, proven and optimised; what cannot be done says so."""

from __future__ import annotations

from pathlib import Path

import making_onnx as making
import pytest
from onnx import TensorProto, helper

from steps.conftest import Run, golden_config, onnx_config
from tritonforge.errors import CheckFailed

pytestmark = pytest.mark.slow

ROWS = 560_000_000  # of four bytes: 2.1 GiB


def save_sparse(folder: Path) -> dict[str, Path]:
    """``y = table[x]`` with a table of zeros that takes no room on disk."""
    folder.mkdir()
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(4 * ROWS))):
        table.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Identity", ["x"], ["i"]), helper.make_node("Gather", ["table", "i"], ["y"])]
    shape = ["N", 2]
    made = making.model(nodes, [making.value("x", shape, making.INT64)], [making.value("y", shape)], [table])
    making.save(folder / "model.onnx", made)
    with (folder / "table.bin").open("wb") as stream:
        stream.truncate(4 * ROWS)
    return {name: folder / name for name in ("model.onnx", "table.bin")}


def test_more_than_two_gibibytes_go_through(run: Run, tmp_path: Path) -> None:
    source = run("import-onnx", onnx_config(), sources=save_sparse(tmp_path / "src"))
    assert source.metadata["external"] == ["table.bin"]
    assert source.signature is not None
    assert source.signature.batched is True
    golden = run("golden", golden_config(format="onnx", batches=[1]), inputs={"model": source})
    made = run("optimize-onnx", {"level": "basic", "format": "onnx"}, inputs={"model": source})
    assert made.files["model.onnx.data"].size >= 4 * ROWS
    assert made.files["model.onnx"].size < 2000
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    quantize = {"mode": "dynamic", "per_channel": True, "reduce_range": True, "exclude": []}
    for step, config in (
        ("simplify", {}),
        ("quantize", quantize),
        ("optimize-onnx", {"level": "basic", "format": "ort"}),
    ):
        with pytest.raises(CheckFailed, match=rf"`{step}` cannot hold a model of 2\.1 GiB"):
            run(step, config, inputs={"model": source})


def test_a_file_that_is_too_large_to_parse_is_refused_before_it_is_read(tmp_path: Path) -> None:
    from tritonforge.sources.onnx_file import parse

    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(CheckFailed, match="larger than a protobuf message can be") as raised:
        parse(path)
    assert "save_as_external_data" in str(raised.value.hint)
