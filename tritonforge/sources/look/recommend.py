"""Which of Triton's backends can serve a model, and which format suits which machine: rules as data, with reasons.

Sources: the backends' own pages (github.com/triton-inference-server: ``onnxruntime_backend``, ``pytorch_backend``,
``openvino_backend``, ``tensorrt_backend``, ``python_backend``); NVIDIA's TensorRT documentation (engines are tied to
version, GPU architecture and platform; working with DLA); the release notes of TensorFlow 2.18 (TF-TRT ended with
2.17); ONNX Runtime's quantization page (S8S8 is slow on x86-64, U8S8 is not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from tritonforge.sources.look.facts import ModelFacts, dynamic_axes

Answer = Literal["yes", "convert", "no"]
BACKENDS: Final = ("onnxruntime", "tensorrt", "openvino", "pytorch", "python")


@dataclass(frozen=True, slots=True)
class Backend:
    """Whether a backend can serve the model: as it is, after a conversion, or not at all."""

    name: str
    answer: Answer
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"backend": self.name, "answer": self.answer, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Advice:
    """What to serve on a kind of machine; ``backend`` None where none of them is for it."""

    target: str
    backend: str | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"target": self.target, "backend": self.backend, "reason": self.reason}


Condition = Callable[[ModelFacts], bool]


def _always(_: ModelFacts) -> bool:
    return True


def _custom(facts: ModelFacts) -> bool:
    return bool(facts.custom)


def _contributed(facts: ModelFacts) -> bool:
    return any(name.startswith(("com.microsoft", "com.ms.")) for name in facts.operators)


def _not_only_tensors(facts: ModelFacts) -> bool:
    kinds = {tensor.datatype for tensor in (*(facts.inputs or ()), *(facts.outputs or ()))}
    return bool(kinds & {"sequence", "map", "optional", "sparse_tensor", "opaque", "untyped"})


def _texts(facts: ModelFacts) -> bool:
    return any(tensor.datatype == "BYTES" for tensor in (*(facts.inputs or ()), *(facts.outputs or ())))


def _old_opset(facts: ModelFacts) -> bool:
    opset = facts.versions.get("opset")
    return isinstance(opset, int) and 0 < opset < 7


def _dynamic(facts: ModelFacts) -> bool:
    return bool(dynamic_axes(facts.inputs or ()))


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule that fits a format and a model gives a backend's answer."""

    backend: str
    formats: str
    answer: Answer
    reason: str
    when: Condition = _always


_TENSORFLOW: Final = "savedmodel graphdef keras"
_NEEDS_CODE: Final = "torch-weights torch-pickle tf-checkpoint"

RULES: Final = (
    Rule(
        "onnxruntime",
        "onnx",
        "no",
        "no runtime has the operators {custom}; export without them, or register a library",
        _custom,
    ),
    Rule(
        "onnxruntime",
        "onnx",
        "no",
        "Triton carries tensors alone: export without sequences and maps (zipmap=False)",
        _not_only_tensors,
    ),
    Rule(
        "onnxruntime",
        "onnx",
        "convert",
        "ONNX Runtime supports opset 7 and newer: use onnx.version_converter",
        _old_opset,
    ),
    Rule("onnxruntime", "onnx", "yes", "it runs ONNX as it is"),
    Rule(
        "onnxruntime",
        "torchscript",
        "convert",
        "torch.onnx.export, which needs example inputs: TorchScript keeps no shapes",
    ),
    Rule("onnxruntime", "torch-export", "convert", "torch.onnx.export(dynamo=True) takes an exported program"),
    Rule("onnxruntime", "huggingface", "convert", "transformers and torch.onnx.export, for a task"),
    Rule("onnxruntime", _TENSORFLOW, "convert", "tf2onnx"),
    Rule("tensorrt", "onnx", "no", "TensorRT has no plugin for {custom}", _custom),
    Rule(
        "tensorrt", "onnx", "no", "TensorRT does not parse ONNX Runtime's own operators (com.microsoft)", _contributed
    ),
    Rule(
        "tensorrt",
        "onnx",
        "no",
        "TensorRT carries tensors of numbers alone",
        lambda facts: _texts(facts) or _not_only_tensors(facts),
    ),
    Rule(
        "tensorrt",
        "onnx",
        "convert",
        "an engine, built where it will run: it is tied to TensorRT's version and the GPU; dynamic "
        "axes need optimization profiles",
        _dynamic,
    ),
    Rule(
        "tensorrt",
        "onnx",
        "convert",
        "an engine, built where it will run: it is tied to TensorRT's version and the GPU",
    ),
    Rule("tensorrt", "torchscript torch-export huggingface", "convert", "to ONNX, then an engine on the target"),
    Rule(
        "tensorrt",
        _TENSORFLOW,
        "convert",
        "to ONNX by tf2onnx, then an engine on the target: TF-TRT ended with TensorFlow 2.17",
    ),
    Rule("openvino", "openvino", "yes", "it runs OpenVINO's IR as it is"),
    Rule("openvino", "onnx", "no", "OpenVINO does not have the operators {custom}", _custom),
    Rule(
        "openvino",
        "onnx",
        "convert",
        "to IR by openvino.convert_model, which knows a part of ONNX Runtime's own operators",
        _contributed,
    ),
    Rule("openvino", f"onnx torchscript torch-export {_TENSORFLOW}", "convert", "to IR by openvino.convert_model"),
    Rule("openvino", "huggingface", "convert", "to IR by optimum-intel, or through ONNX"),
    Rule("pytorch", "torchscript", "yes", "it runs TorchScript as it is; config.pbtxt must name shapes and types"),
    Rule(
        "pytorch",
        "aoti",
        "yes",
        "newer releases of the backend load .pt2 packages, on the processor they were compiled for",
    ),
    Rule(
        "pytorch",
        "torch-export",
        "convert",
        "to an AOTInductor package for newer releases of the backend, compiled on the target",
    ),
    Rule("pytorch", "huggingface", "convert", "torch.jit.trace with example inputs, for a task"),
    Rule("pytorch", "onnx openvino", "no", "PyTorch reads no {format}"),
    Rule("pytorch", f"{_TENSORFLOW} tf-checkpoint", "no", "PyTorch reads no models of TensorFlow"),
    Rule("python", "python", "yes", "it is a model of this backend"),
    Rule(
        "python",
        "torch-pickle",
        "convert",
        "with a model.py that unpickles it, which runs the code that the pickle names: only from a source you trust",
    ),
    Rule(
        "python",
        "huggingface",
        "convert",
        "with a model.py that calls transformers: simple, and slower than an exported model",
    ),
    Rule(
        "python",
        "onnx torchscript torch-export torch-weights aoti openvino savedmodel graphdef keras tf-checkpoint",
        "convert",
        "with a model.py that loads it in its framework",
    ),
    Rule(
        "*",
        "torch-pickle",
        "convert",
        "load it with the code that it names ({globals}), which must be allowed, and export that",
    ),
    Rule("*", _NEEDS_CODE, "convert", "weights alone: the code that makes the model is needed, to export from"),
    Rule("*", "aoti", "no", "machine code cannot be converted back: export from the model it came from"),
    Rule("*", "openvino", "no", "IR cannot be converted back: convert the model it came from"),
    Rule("*", "python", "no", "it is code, which only the Python backend runs"),
)


def backends(facts: ModelFacts) -> tuple[Backend, ...]:
    """Each backend's answer, in the order of ``BACKENDS``."""
    return tuple(_backend(name, facts) for name in BACKENDS)


def _backend(name: str, facts: ModelFacts) -> Backend:
    for rule in RULES:
        if rule.backend in (name, "*") and facts.format in rule.formats.split() and rule.when(facts):
            words = {
                "custom": ", ".join(facts.custom[:4]),
                "globals": ", ".join([item for item in facts.globals if not item.startswith(_USUAL)][:3]),
                "format": {"onnx": "ONNX", "openvino": "IR"}.get(facts.format, facts.format),
            }
            return Backend(name, rule.answer, rule.reason.format_map(words))
    return Backend(name, "no", f"nothing is known of serving {facts.format} with it")


_USUAL: Final = ("torch._utils.", "torch.", "collections.", "builtins.")


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine: the backends that suit it, the best first, each with the reason."""

    name: str
    choices: tuple[tuple[str, str], ...]
    otherwise: str


TARGETS: Final = (
    Target(
        "NVIDIA GPU",
        (
            ("tensorrt", "fastest there; ONNX Runtime with its TensorRT accelerator builds the engine at load instead"),
            ("onnxruntime", "CUDA kernels; check the providers of the session, for it falls back to the CPU silently"),
            ("pytorch", "CUDA kernels of PyTorch, with its whole set of operators"),
            ("python", "with the framework's own CUDA kernels"),
        ),
        "none of the backends takes it to a GPU",
    ),
    Target(
        "Intel CPU",
        (
            ("openvino", "tuned for Intel; quantize activations as U8, for S8S8 is about ten times slower there"),
            ("onnxruntime", "good on any CPU; quantize activations as U8, for S8S8 is about ten times slower there"),
            ("pytorch", "runs, and needs more memory than ONNX Runtime"),
            ("python", "runs on any processor"),
        ),
        "none of the backends takes it to a CPU",
    ),
    Target(
        "cross-platform",
        (
            ("onnxruntime", "one ONNX file for CPUs and GPUs of every vendor; every other backend starts from it"),
            ("pytorch", "one file for CPU and CUDA"),
            ("python", "runs wherever its packages do"),
            ("openvino", "Intel's processors and ARM CPUs"),
        ),
        "none of the backends takes it elsewhere",
    ),
    Target(
        "Jetson",
        (
            ("tensorrt", "built on the device itself: there is no cross-build"),
            ("onnxruntime", "its CUDA provider, where an engine cannot be built"),
            ("pytorch", "CUDA kernels; memory is shared with the CPU, and PyTorch takes much of it"),
            ("python", "memory is shared between CPU and GPU: mind what the framework takes"),
        ),
        "none of the backends takes it to a Jetson",
    ),
)

_DLA_OFFERS: Final = (
    "TensorRT up to 10.7, and again from 11.4.1 on AGX Orin alone, never on Thor; FP16 or INT8; what it lacks runs on "
    "the GPU"
)
_MOBILE: Final = {
    "onnx": "ONNX Runtime Mobile runs this file",
    "savedmodel": "LiteRT (the TensorFlow Lite converter) is the short way",
    "keras": "LiteRT (the TensorFlow Lite converter) is the short way",
    "graphdef": "LiteRT (the TensorFlow Lite converter) is the short way",
    "torch-export": "ExecuTorch starts from an exported program",
    "torchscript": "export to ONNX for ONNX Runtime Mobile, or from the module for ExecuTorch",
}


def advise(facts: ModelFacts, answers: tuple[Backend, ...]) -> tuple[Advice, ...]:
    """What to serve on each kind of machine."""
    by_name = {item.name: item for item in answers}
    found = [_advise(target, by_name) for target in TARGETS]
    found.append(_dla(facts, by_name["tensorrt"]))
    way = _MOBILE.get(facts.format, "export to ONNX for ONNX Runtime Mobile")
    found.append(Advice("mobile", None, f"Triton is a server and runs on no phone; {way}"))
    return tuple(found)


def _advise(target: Target, answers: dict[str, Backend]) -> Advice:
    for name, reason in target.choices:
        answer = answers[name]
        if answer.answer == "yes":
            return Advice(target.name, name, reason)
        if answer.answer == "convert":
            return Advice(target.name, name, f"{reason} (after a conversion)")
    return Advice(target.name, None, target.otherwise)


def _dla(facts: ModelFacts, tensorrt: Backend) -> Advice:
    if tensorrt.answer == "no":
        return Advice("Jetson DLA", None, f"it takes TensorRT engines alone, and {tensorrt.reason}")
    fixed = "; it takes no dynamic shapes: fix every axis first" if _dynamic(facts) else ""
    return Advice("Jetson DLA", "tensorrt", f"{_DLA_OFFERS}{fixed}")
