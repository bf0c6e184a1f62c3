"""Short ways to make what the tests of the repository need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tritonforge.artifact.signature import Signature, Tensor, parse_type
from tritonforge.errors import Place
from tritonforge.repository.config import ConfigRequest, GeneratedConfig, Layer, generate
from tritonforge.spec.document import dotted
from tritonforge.spec.platform import Platform

CPU = Platform("local", "24.10", True, "x86_64")
NEWEST = Platform("new", "26.07", False, "x86_64", gpu="sm_90", gpus=2)
SPEC = Path("forge.yaml")


def tensor(name: str, text: str, *, batched: bool = True, **more: Any) -> Tensor:
    datatype, item = parse_type(text)
    return Tensor(name, datatype, (("batch", *item) if batched else item), **more)


def signature(inputs: dict[str, str], outputs: dict[str, str], *, batched: bool = True) -> Signature:
    return Signature(
        tuple(tensor(name, text, batched=batched) for name, text in inputs.items()),
        tuple(tensor(name, text, batched=batched) for name, text in outputs.items()),
        batched,
    )


IMAGES = signature({"IMAGE": "FP32[3,-1,-1]", "GAIN": "FP32[]"}, {"SCORES": "FP32[10]"})
TEXT = signature({"TEXT": "BYTES[]"}, {"N": "INT64[n]"}, batched=False)


def place(path: tuple[str | int, ...]) -> Place:
    return Place(SPEC, 12, dotted(path))


def layer(values: dict[str, Any], label: str = "spec") -> Layer:
    return Layer(label, values, place)


def request(values: dict[str, Any] | None = None, **more: Any) -> ConfigRequest:
    settings: dict[str, Any] = {"name": "m", "backend": "onnxruntime", "signature": IMAGES, "platform": CPU, **more}
    if values is not None:
        settings["layers"] = (layer(values),)
    return ConfigRequest(**settings)


def made(values: dict[str, Any] | None = None, **more: Any) -> GeneratedConfig:
    return generate(request(values, **more))
