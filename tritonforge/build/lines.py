"""From a source's artifact to what each backend serves: which steps, in which order, with which configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.build.graph import Graph, Line, Node
from tritonforge.errors import Place, SpecError
from tritonforge.spec.conversion.effective import Conversion

BACKENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnx": ("onnxruntime", "openvino"),
    "python": ("python",),
    "torch": ("onnxruntime", "pytorch", "openvino", "python"),
    "tensorflow": ("onnxruntime", "openvino", "python"),
}
"""The backends that can serve an imported source of each format, the default first."""

WHY_NOT: Final[Mapping[tuple[str, str], str]] = {
    ("onnx", "pytorch"): "nothing turns an ONNX graph back into TorchScript faithfully: give the PyTorch source",
    ("onnx", "python"): "the onnxruntime backend runs the same graph without Python in between",
    ("tensorflow", "pytorch"): "TensorFlow and PyTorch meet in ONNX: the onnxruntime and openvino backends serve it",
    ("python", "onnxruntime"): "a Python model is code: there is no graph to convert",
    ("python", "pytorch"): "a Python model is code: there is no graph to convert",
    ("python", "openvino"): "a Python model is code: there is no graph to convert",
}
"""Why a backend cannot serve a source, where it cannot."""

QUANTIZED_TOLERANCE: Final = {"cosine": 0.98}
"""INT8 changes every value a little: what counts is the direction. all-MiniLM gave 0.993 (dynamic, per channel)."""

HALF_TOLERANCE: Final = {"abs": 1e-2, "rel": 1e-2}
"""FP16 weights: some units in the last place, 2^-11 each, added up over a row."""

BRAIN_TOLERANCE: Final = {"abs": 5e-2, "rel": 5e-2}
"""Served in BF16: some units in the last place, 2^-8 each."""


_BY_PRECISION: Final = {"fp16": HALF_TOLERANCE, "bf16": BRAIN_TOLERANCE}
"""By the precision of weights whose inputs and outputs are FP32 all the same."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where lines of one model begin: its imported source and, where there are some, its golden cases.

    ``sequence`` configures the step that gives the graph of a model with states its implicit ones.
    """

    model: str
    format: str
    imported: str
    golden: str | None
    precision: str = "fp32"
    sequence: Mapping[str, Any] | None = None


def plan_line(graph: Graph, start: Start, conversion: Conversion, backend: str, place: Place) -> Line:
    """The nodes of one line. A step that another line of the model has with the same configuration is shared.

    Raises:
        SpecError: the backend cannot serve such a source, or the line asks for a step that does not fit it.
    """
    if backend not in BACKENDS[start.format]:
        raise SpecError(
            f"the backend '{backend}' cannot be made from a source in {start.format}",
            place=place,
            expected=" or ".join(BACKENDS[start.format]),
            found=backend,
            hint=WHY_NOT.get((start.format, backend))
            or "`format: passthrough` serves files as they are, by any backend",
        )
    _refuse_unused(start, conversion, backend, place)
    chain = _Chain(graph, start.model, conversion.label, start.imported)
    served_format = start.format
    if start.precision == "bf16" and backend == "onnxruntime":
        raise SpecError(
            "ONNX Runtime computes nothing of these models in BF16 on a CPU",
            place=place,
            hint="say `huggingface: {dtype: fp32}`, or serve it with `backend: pytorch` or `backend: python`",
        )
    tolerance = conversion.tolerance or _BY_PRECISION.get(start.precision)
    if backend in ("onnxruntime", "openvino"):
        served_format = "onnx"
        if start.format == "torch":
            chain.then(
                "torch-to-onnx",
                {"opset": conversion.export.opset, "exporters": conversion.export.exporters},
            )
        elif start.format == "tensorflow":
            chain.then("tensorflow-to-onnx", {"opset": conversion.export.opset})
        if start.sequence is not None:
            chain.then("stateful", start.sequence)
        if conversion.simplify:
            chain.then("simplify", {})
        if conversion.quantize is not None:
            chain.then("quantize", conversion.quantize.model_dump())
            tolerance = tolerance or QUANTIZED_TOLERANCE
        if backend == "openvino":
            served_format = "openvino"
            chain.then("onnx-to-openvino", conversion.openvino.built())
            if conversion.openvino.compress == "fp16":
                tolerance = tolerance or HALF_TOLERANCE
        elif conversion.onnxruntime.optimize != "none" or conversion.onnxruntime.format == "ort":
            settings = conversion.onnxruntime
            chain.then("optimize-onnx", {"level": settings.optimize, "format": settings.format})
    elif backend == "pytorch" and conversion.pytorch.form == "aoti":
        served_format = "aoti"
        chain.then("torch-to-aoti", {})
    elif backend == "pytorch":
        served_format = "torchscript"
        settings_ = conversion.pytorch
        chain.then(
            "torch-to-torchscript",
            {"method": settings_.method, "freeze": settings_.freeze, "optimize": settings_.optimize},
        )
    elif start.format == "torch":
        served_format = "torch-compile"
        chain.then("torch-to-compile", {"mode": conversion.pytorch.compile_mode})
    elif start.format == "tensorflow":
        served_format = "tensorflow"
        chain.then("tensorflow-to-python", {})
    parity = None
    if start.golden is not None and start.format != "python":
        parity = chain.beside(
            "parity",
            {"format": served_format, "tolerance": None if tolerance is None else dict(tolerance)},
            {"model": chain.at, "golden": start.golden},
        )
    if backend == "openvino" and conversion.tolerance is None and conversion.quantize is None:
        # Compared in FP32 here, whatever the processor; served in BF16 where the processor has it.
        tolerance = BRAIN_TOLERANCE
    return Line(conversion.label, backend, chain.at, parity, tolerance, conversion)


def _refuse_unused(start: Start, conversion: Conversion, backend: str, place: Place) -> None:
    """Settings that nothing on this line would read are mistakes, not wishes."""
    if start.sequence is not None and backend != "onnxruntime":
        raise SpecError(
            "`sequence` gives states to an ONNX graph for the onnxruntime backend",
            place=place,
            expected="backend: onnxruntime",
            found=backend,
            hint="a model that keeps its states itself says `sequence_batching` under `config:`",
        )
    through_onnx = backend in ("onnxruntime", "openvino")
    for name, asked in (("simplify", conversion.simplify), ("quantize", conversion.quantize is not None)):
        if asked and not through_onnx:
            raise SpecError(
                f"`{name}` works on ONNX, which the line to the backend '{backend}' does not pass",
                place=place,
                hint="drop it here, or serve with onnxruntime or openvino",
            )
    if conversion.export.opset is not None and (start.format == "onnx" or not through_onnx):
        raise SpecError(
            "`export.opset` is for sources that are exported to ONNX",
            place=place,
            found=f"a source in {start.format} for the backend '{backend}'",
        )


@dataclass(slots=True)
class _Chain:
    """Nodes of one line, each reading the one before as ``model``."""

    graph: Graph
    model: str
    label: str
    at: str

    def then(self, step: str, config: Mapping[str, Any]) -> None:
        self.at = self.beside(step, config, {"model": self.at})

    def beside(self, step: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        for node in self.graph.of_model(self.model):
            if (node.step, node.config, node.inputs) == (step, config, inputs):
                return node.id
        name = f"{self.model}/{step}"
        if name in self.graph.nodes:
            name = f"{name}.{self.label}"
        return self.graph.add(Node(name, self.model, step, config, inputs))
