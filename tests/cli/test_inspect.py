from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cli.commands import PROGRAM, Workshop, errors_said

MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"peak": peak, "said": json.loads(done.stdout)}))
"""


def huge(folder: Path, layers: int = 64, width: int = 2048) -> Path:
    """About a gigabyte of external weights, in a file that is one hole."""
    nodes, weights, last = [], [], "x"
    length = 4 * width * width
    for layer in range(layers):
        weight = TensorProto(name=f"w{layer}", data_type=1, dims=[width, width], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "w.bin"), ("offset", str(layer * length)), ("length", str(length))):
            weight.external_data.add(key=key, value=value)
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", [last, weight.name], [f"y{layer}"]))
        last = f"y{layer}"
    inputs, outputs = [making.value("x", ["N", width])], [making.value(last, ["N", width])]
    path = folder / "huge.onnx"
    onnx.save_model(making.model(nodes, inputs, outputs, weights), path)
    with (folder / "w.bin").open("wb") as stream:
        stream.truncate(layers * length)
    return path


def test_a_gigabyte_of_weights_takes_no_memory(workshop: Workshop) -> None:
    path = huge(workshop.folder)
    words = [str(PROGRAM), "inspect", str(path), "--axis", "N=3", "--json"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["peak"] < 150e6
    assert found["said"]["size"] > 1e9
    assert found["said"]["parameters"] == 64 * 2048 * 2048
    assert found["said"]["flops"]["total"] == 64 * 2 * 3 * 2048 * 2048
    assert found["said"]["memory"]["weights"] == 64 * 4 * 2048 * 2048


@pytest.mark.parametrize("name", ["net.onnx", "weights.safetensors"])
def test_no_framework_is_imported(workshop: Workshop, name: str) -> None:
    making.save(workshop.folder / "net.onnx", making.batched_add())
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (workshop.folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    script = (
        "import sys\nfrom tritonforge.cli.main import run\n"
        f"try:\n    run(['inspect', {name!r}, '--json'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "print([name for name in ('torch', 'tensorflow', 'numpy', 'onnx', 'onnxruntime', 'pydantic', 'rich') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workshop.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_message_classes_are_those_of_onnx() -> None:
    script = (
        "from tritonforge.sources.look import onnx_light as light\n"
        "classes, native = light.messages(), light.native()\nimport sys\nassert 'onnx' not in sys.modules\n"
        "import onnx, onnx.checker, onnx.shape_inference, onnx.inliner, onnx.version_converter\n"
        "from onnx import helper as h\n"
        "assert onnx.ModelProto is classes.ModelProto\n"
        "value = lambda name: h.make_tensor_value_info(name, 1, [2])\n"
        "model = h.make_model(h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', [value('x')], [value('y')]))\n"
        "onnx.checker.check_model(model)\nonnx.shape_inference.infer_shapes(model)\n"
        "assert light.native() is native"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_people_get_tables(workshop: Workshop) -> None:
    weights = [making.constant("w", np.zeros((4, 10), np.float32))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = making.model([node], [making.value("x", ["N", 4])], [making.value("y", ["N", 10])], weights)
    making.save(workshop.folder / "net.onnx", model)
    done = workshop.run("inspect", "net.onnx", "--axis", "N=50")
    assert done.code == 0, done.err
    for text in (
        "N = 50",
        "4.00 k FLOPs (4,000)",
        "N×4",
        "MatMul",
        "onnxruntime",
        "Jetson DLA",
        "opset",
        "160 B weights",
    ):
        assert text in done.out, text
    assert done.err == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["missing.onnx"], 2, "no such file"),
        (["net.onnx", "--axis", "M=2"], 2, "no dynamic axis 'M'"),
        (["net.onnx", "--axis", "N"], 2, "names no size"),
        (["net.onnx", "--axis", "N=0"], 2, "names no size"),
        (["net.onnx", "--axis", "N=-3"], 2, "names no size"),
        (["net.onnx", "--axis", "N=99999999999999999999"], 2, "names no size"),
        (["net.onnx", "--axis", "N=2", "--axis", "N=3"], 2, "two sizes"),
        (["empty.onnx"], 1, "is empty"),
        (["half.pt"], 1, "truncated or no zip"),
        ([], 2, "Missing argument"),
    ],
)
def test_bad_input_ends_with_one_error(workshop: Workshop, words: list[str], code: int, message: str) -> None:
    making.save(workshop.folder / "net.onnx", making.batched_add())
    (workshop.folder / "empty.onnx").touch()
    (workshop.folder / "half.pt").write_bytes(b"PK\3\4half")
    done = workshop.run("inspect", *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert workshop.run("inspect", *words, "--json").json["exit_code"] == code


def test_what_keeps_a_model_from_being_served_is_an_error_after_the_facts(workshop: Workshop) -> None:
    path = huge(workshop.folder, layers=1, width=4)
    os.truncate(workshop.folder / "w.bin", 10)
    done = workshop.run("inspect", path)
    assert (done.code, errors_said(done.err)) == (1, 1)
    assert "w.bin has 10 bytes" in done.err
    assert "onnxruntime" in done.out
    assert workshop.json("inspect", path, code=1)["problems"] != []
