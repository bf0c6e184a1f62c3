from __future__ import annotations

from typing import Any

import pytest

from tritonforge.build.graph import Graph, Line, Node
from tritonforge.build.lines import (
    BACKENDS,
    BRAIN_TOLERANCE,
    HALF_TOLERANCE,
    QUANTIZED_TOLERANCE,
    WHY_NOT,
    Start,
    plan_line,
)
from tritonforge.errors import Place, SpecError
from tritonforge.spec.conversion.effective import Conversion, conversions
from tritonforge.spec.models import ModelSpec


def model(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"source": "net.onnx", **more})


def conversion(**more: Any) -> Conversion:
    (only,) = conversions(model(**more))
    return only


def start(format_: str, graph: Graph) -> Start:
    graph.add(Node("m/import", "m", f"import-{format_}", {}))
    graph.add(Node("m/golden", "m", "golden", {}, {"model": "m/import"}))
    return Start("m", format_, "m/import", "m/golden")


def plan(format_: str, backend: str, **more: Any) -> tuple[list[str], Line]:
    """The steps between import and artefact, in order, and the line."""
    graph = Graph()
    line = plan_line(graph, start(format_, graph), conversion(**more), backend, Place())
    steps, at = [], line.artifact
    while at != "m/import":
        steps.append(graph.nodes[at].step)
        at = graph.nodes[at].inputs["model"]
    assert line.parity is None or graph.nodes[line.parity].inputs == {"model": line.artifact, "golden": "m/golden"}
    return steps[::-1], line


@pytest.mark.parametrize(
    ("format_", "backend", "more", "steps"),
    [
        ("onnx", "onnxruntime", {}, []),
        ("onnx", "onnxruntime", {"simplify": True}, ["simplify"]),
        ("onnx", "onnxruntime", {"quantize": {"mode": "dynamic"}}, ["quantize"]),
        ("onnx", "onnxruntime", {"onnxruntime": {"optimize": "all"}}, ["optimize-onnx"]),
        ("onnx", "openvino", {"simplify": True}, ["simplify", "onnx-to-openvino"]),
        ("torch", "onnxruntime", {}, ["torch-to-onnx"]),
        ("torch", "openvino", {}, ["torch-to-onnx", "onnx-to-openvino"]),
        ("torch", "pytorch", {}, ["torch-to-torchscript"]),
        ("torch", "pytorch", {"pytorch": {"form": "aoti"}}, ["torch-to-aoti"]),
        ("torch", "python", {}, ["torch-to-compile"]),
        ("tensorflow", "onnxruntime", {}, ["tensorflow-to-onnx"]),
        ("tensorflow", "openvino", {}, ["tensorflow-to-onnx", "onnx-to-openvino"]),
        ("tensorflow", "python", {}, ["tensorflow-to-python"]),
        ("python", "python", {}, []),
    ],
)
def test_each_source_reaches_each_backend_by_its_own_steps(
    format_: str, backend: str, more: dict[str, Any], steps: list[str]
) -> None:
    found, line = plan(format_, backend, **more)
    assert found == steps
    assert (line.parity is None) == (format_ == "python")


def test_what_a_backend_cannot_serve_is_refused_with_the_reason() -> None:
    for format_, backends in BACKENDS.items():
        for backend in {"onnxruntime", "pytorch", "openvino", "python"} - set(backends):
            with pytest.raises(SpecError) as caught:
                plan(format_, backend)
            assert caught.value.hint == WHY_NOT[format_, backend]


@pytest.mark.parametrize(
    ("backend", "more", "tolerance"),
    [
        ("onnxruntime", {}, None),
        ("onnxruntime", {"quantize": {"mode": "dynamic"}}, QUANTIZED_TOLERANCE),
        ("openvino", {}, BRAIN_TOLERANCE),
        ("openvino", {"openvino": {"compress": "fp16"}}, BRAIN_TOLERANCE),
        ("openvino", {"tolerance": {"abs": 1}}, {"abs": 1}),
        ("openvino", {"quantize": {"mode": "dynamic"}}, QUANTIZED_TOLERANCE),
        ("onnxruntime", {"quantize": {"mode": "dynamic"}, "tolerance": {"abs": 1}}, {"abs": 1}),
    ],
)
def test_the_precision_decides_the_tolerance_unless_the_spec_does(
    backend: str, more: dict[str, Any], tolerance: Any
) -> None:
    assert plan("onnx", backend, **more)[1].tolerance == tolerance


@pytest.mark.parametrize(("compress", "tolerance"), [("none", None), ("fp16", HALF_TOLERANCE)])
def test_openvino_is_compared_in_fp32_here_and_in_bf16_where_it_is_served(compress: str, tolerance: Any) -> None:
    graph = Graph()
    asked = conversion(openvino={"compress": compress})
    line = plan_line(graph, start("onnx", graph), asked, "openvino", Place())
    assert line.parity is not None
    assert graph.nodes[line.parity].config["tolerance"] == tolerance
    assert line.tolerance == BRAIN_TOLERANCE


@pytest.mark.parametrize(
    ("format_", "backend", "more", "message"),
    [
        ("torch", "pytorch", {"quantize": {"mode": "dynamic"}}, "`quantize` works on ONNX"),
        ("torch", "pytorch", {"simplify": True}, "`simplify` works on ONNX"),
        ("onnx", "onnxruntime", {"export": {"opset": 17}}, "`export.opset` is for sources that are exported"),
        ("torch", "pytorch", {"export": {"opset": 17}}, "`export.opset` is for sources that are exported"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(
    format_: str, backend: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        plan(format_, backend, **more)


def test_lines_share_the_steps_that_are_equal() -> None:
    graph = Graph()
    begin = start("torch", graph)
    asked = model(
        variants={
            "ort": {"backend": "onnxruntime"},
            "ov": {"backend": "openvino"},
            "old": {"backend": "onnxruntime", "export": {"opset": 17}},
        }
    )
    lines = [plan_line(graph, begin, item, str(item.backend), Place()) for item in conversions(asked)]
    steps = [node.step for node in graph.nodes.values()]
    assert steps.count("torch-to-onnx") == 2
    assert graph.nodes[lines[1].artifact].inputs["model"] == lines[0].artifact
    assert lines[2].artifact == "m/torch-to-onnx.old"


def test_a_variant_says_only_what_differs() -> None:
    asked = model(
        simplify=True,
        openvino={"compress": "fp16", "shapes": {"batch": 4}},
        variants={"a": {}, "b": {"simplify": False, "openvino": {"compress": "none"}}},
    )
    a, b = conversions(asked)
    assert (a.simplify, a.openvino.compress, a.openvino.shapes) == (True, "fp16", {"batch": 4})
    assert (b.simplify, b.openvino.compress, b.openvino.shapes) == (False, "none", {"batch": 4})
