"""Look at a model in OpenVINO's IR: an ``.xml`` with its ``.bin``.

Source: docs.openvino.ai, OpenVINO IR format and operation sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Final
from xml.parsers import expat

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.formats import only
from tritonforge.sources.look.facts import Dim, Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes

_TYPES: Final = {
    "f32": "FP32", "f16": "FP16", "f64": "FP64", "bf16": "BF16", "i8": "INT8", "i16": "INT16", "i32": "INT32",
    "i64": "INT64", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "boolean": "BOOL",
    "string": "BYTES",
}  # fmt: skip
_NO_WEIGHTS: Final = {"i64", "boolean", "string"}


@dataclass(slots=True)
class _Ir:
    operators: Counter[str] = field(default_factory=Counter)
    inputs: list[TensorFacts] = field(default_factory=list)
    outputs: list[TensorFacts] = field(default_factory=list)
    weights: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    end: int = 0
    version: str = ""
    path: list[str] = field(default_factory=list)
    layer: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    names: str = ""
    dims: list[int] = field(default_factory=list)
    text: str = ""


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the IR at ``path``, or of the one in that folder.

    Raises:
        CheckFailed: empty, truncated, no IR, or XML with a document type (which could grow without end).
        UsageError: an axis that the model does not have.
    """
    file = path if path.is_file() else only(path, ".xml")
    if file is None:
        raise CheckFailed("the folder holds no single IR", place=Place(path), expected="exactly one .xml")
    ir = _read(file)
    if not ir.version or not ir.operators:
        raise CheckFailed(f"{file.name} is no OpenVINO IR", place=Place(file), expected='<net version="11">')
    weights = file.with_suffix(".bin")
    size = weights.stat().st_size
    problems = (f"{weights.name} has {size} bytes, and weights up to byte {ir.end}",) if size < ir.end else ()
    return ModelFacts(
        format="openvino",
        path=path,
        files={file.name: file.stat().st_size, weights.name: size},
        inputs=tuple(ir.inputs),
        outputs=tuple(ir.outputs),
        sizes=axis_sizes(dynamic_axes(ir.inputs), axes, Place(file)),
        parameters=ir.weights.total(),
        weight_types=dict(ir.weights.most_common()),
        operators=dict(ir.operators.most_common()),
        memory=Memory(ir.bytes),
        versions={"ir_version": ir.version},
        problems=problems,
    )


def _read(file: Path) -> _Ir:
    ir = _Ir()
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: _start(ir, tag, attributes)
    parser.EndElementHandler = lambda tag: _end(ir, tag)
    parser.CharacterDataHandler = lambda text: _text(ir, text)
    parser.StartDoctypeDeclHandler = lambda *_: _refuse(file)
    try:
        with file.open("rb") as stream:
            parser.ParseFile(stream)
    except (expat.ExpatError, ValueError, KeyError) as error:
        raise CheckFailed(
            f"{file.name} is truncated or no OpenVINO IR",
            place=Place(file, parser.CurrentLineNumber),
            expected="XML of OpenVINO",
            found=str(error)[:200],
        ) from None
    return ir


def _refuse(file: Path) -> None:
    raise CheckFailed("the XML has a document type", place=Place(file), expected="none: IRs have no <!DOCTYPE>")


def _start(ir: _Ir, tag: str, attributes: dict[str, str]) -> None:
    ir.path.append(tag)
    if len(ir.path) > 200:
        raise ValueError("elements are nested more than 200 deep")
    if tag == "net" and len(ir.path) == 1:
        ir.version = attributes.get("version", "")[:20]
    elif tag == "layer":
        ir.layer, ir.data, ir.names, ir.dims = attributes, {}, "", []
        ir.operators[attributes.get("type", "?")[:200]] += 1
    elif tag == "data":
        ir.data = attributes
        if ir.layer.get("type") == "Const":
            _constant(ir)
    elif tag == "port":
        ir.names, ir.dims = attributes.get("names", ""), []
        if "precision" in attributes:
            ir.data = {**ir.data, "precision": attributes["precision"]}
    elif tag == "dim":
        ir.text = ""


def _text(ir: _Ir, text: str) -> None:
    if ir.path and ir.path[-1] == "dim" and len(ir.text) < 32:
        ir.text += text


def _end(ir: _Ir, tag: str) -> None:
    ir.path.pop()
    if tag == "dim":
        ir.dims.append(int(ir.text))
    elif tag == "layer" and ir.path == ["net", "layers"]:
        kind = ir.layer.get("type")
        if kind in ("Parameter", "Result"):
            name = (ir.names or ir.layer.get("output_names") or ir.layer.get("name", "")).partition(",")[0]
            shape = tuple[Dim, ...](size if size >= 0 else f"?{name}.{axis}" for axis, size in enumerate(ir.dims))
            precision = ir.data.get("element_type") or ir.data.get("precision", "").lower()
            precision = {"fp32": "f32", "fp16": "f16"}.get(precision, precision)
            tensor = TensorFacts(name, _TYPES.get(precision, precision or "unknown"), shape)
            (ir.inputs if kind == "Parameter" else ir.outputs).append(tensor)


def _constant(ir: _Ir) -> None:
    kind = ir.data.get("element_type", "")
    dims = [int(part) for part in ir.data.get("shape", "").split(",") if part.strip()]
    size = int(ir.data.get("size", 0))
    ir.bytes += size
    ir.end = max(ir.end, int(ir.data.get("offset", 0)) + size)
    if dims and kind not in _NO_WEIGHTS:
        ir.weights[_TYPES.get(kind, kind)] += prod(dims)
