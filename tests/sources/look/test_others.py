from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritonforge.errors import CheckFailed
from tritonforge.sources.formats import detect
from tritonforge.sources.look import look
from tritonforge.sources.look.facts import ModelFacts

IR = """<?xml version="1.0"?>
<net name="m" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?,8" element_type="f32" />
  <output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>8</dim></port></output></layer>
<layer id="1" name="w" type="Const" version="opset1">
  <data element_type="f16" shape="8, 2" offset="0" size="32" /></layer>
<layer id="2" name="m" type="MatMul" version="opset1"><data transpose_a="false" transpose_b="false" /></layer>
<layer id="3" name="y/sink" type="Result" version="opset1" output_names="y">
  <input><port id="0" precision="FP32"><dim>-1</dim><dim>2</dim></port></input></layer>
</layers></net>"""


def seen(path: Path, **axes: int) -> ModelFacts:
    kind = detect(path)
    assert kind is not None
    return look(kind, path, axes)


def ir(folder: Path, text: str = IR, size: int = 32) -> Path:
    (folder / "m.xml").write_text(text)
    (folder / "m.bin").write_bytes(bytes(size))
    return folder / "m.xml"


def test_an_ir_tells_signature_weights_and_layers(tmp_path: Path) -> None:
    found = seen(ir(tmp_path))
    tensors = (*(found.inputs or ()), *(found.outputs or ()))
    assert [str(item) for item in tensors] == [
        "x: FP32[?x.0,8]",
        "y: FP32[?y.0,2]",
    ]
    assert (found.parameters, found.weight_types, found.versions) == (16, {"FP16": 16}, {"ir_version": "11"})
    assert found.operators == {"Parameter": 1, "Const": 1, "MatMul": 1, "Result": 1}


def test_weights_that_are_cut_are_a_problem(tmp_path: Path) -> None:
    assert seen(ir(tmp_path, size=31)).problems == ("m.bin has 31 bytes, and weights up to byte 32",)


@pytest.mark.parametrize(
    "text",
    ["", "<net", IR[:300], "<html></html>", '<!DOCTYPE a [<!ENTITY b "c">]><net version="11">&b;</net>', "<a>" * 5000],
)
def test_what_is_no_ir_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CheckFailed):
        seen(ir(tmp_path, text))


def test_what_openvino_itself_writes(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    value = ops.parameter([-1, 4], np.float32, name="x")
    value.output(0).set_names({"x"})
    model = openvino.Model([ops.matmul(value, ops.constant(np.ones((4, 1), np.float32)), False, False)], [value], "m")
    openvino.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    found = seen(tmp_path / "m.xml")
    assert [str(item) for item in found.inputs or ()] == ["x: FP32[?x.0,4]"]
    assert [(item.shape or ())[1:] for item in found.outputs or ()] == [(1,)]
    assert (found.parameters, found.operators["MatMul"]) == (4, 1)


def test_a_python_model_is_parsed_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "model.py"
    path.write_text(
        f"import numpy, os.path\nopen({str(mark)!r}, 'w')\n"
        "class TritonPythonModel:\n    def initialize(self, a): ...\n    def execute(self, r): ...\n"
    )
    found = seen(tmp_path)
    assert found.versions == {"methods": "execute, initialize", "imports": "numpy, os"}
    assert (found.problems, mark.exists()) == ((), False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("x = 1", "no class TritonPythonModel"), ("class TritonPythonModel: ...", "no method execute")],
)
def test_a_python_model_that_the_backend_would_refuse(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "model.py").write_text(text)
    assert problem in seen(tmp_path).problems[0]


@pytest.mark.parametrize("data", [b"def (", b"\0", b"(" * 20_000, b"\xff\xfe"])
def test_what_is_no_python_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.py").write_bytes(data)
    with pytest.raises(CheckFailed, match="no Python"):
        seen(tmp_path)
