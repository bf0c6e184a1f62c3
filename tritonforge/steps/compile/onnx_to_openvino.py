"""``onnx-to-openvino``: an ONNX model as OpenVINO IR, ``model.xml`` and ``model.bin``."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.openvino import IR, compile_ir, datatype_of
from tritonforge.steps.onnx_files import carry_others, made_by
from tritonforge.steps.step import Job, Needs

if TYPE_CHECKING:
    import openvino

BATCH: Final = "batch"
"""What ``shapes`` calls the batch axis, whatever the model calls it."""

_COUNTED: Final = re.compile(r"^[A-Z]\w*?_\d+$")
_LACKS: Final = re.compile(r"No conversion rule found for operations: (.+)")
_FAILS: Final = re.compile(r"Conversion is failed for: (.+)")


class OnnxToOpenVino:
    """Converts, fixes the shapes that are asked for, and compiles the result once for the CPU.

    The configuration has ``compress`` (``none``, ``fp16``: how weights are kept), ``shapes`` (sizes for dynamic axes by
    name) and ``batching`` (``none``: the batch is an ordinary axis; ``padded``: Triton's batch, see ``OpenVinoSpec``).
    """

    name = "onnx-to-openvino"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 4 * input_bytes, tools=("onnx", "openvino"))

    def run(self, job: Job) -> Draft:
        import openvino

        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        place = Place(source.folder / MODEL)
        _refuse_types(signature, place)
        sizes = _named_sizes(signature, job.config["shapes"], place)
        model = _read(source.folder / MODEL, place)
        _fix_names(model, signature, place)
        if sizes:
            _reshape(model, signature, sizes, place)
        found = _signature(model, signature, sizes, place)
        target = job.out / IR
        openvino.save_model(model, str(target), compress_to_fp16=job.config["compress"] == "fp16")
        _number_anew(target)
        compile_ir(target, threads=1)
        carry_others(source, job.out)
        if found.batched:
            found = _batched(found, str(job.config["batching"]), place)
        fixed = {axis: size for axis, size in sizes.items() if size}
        text = f"openvino {openvino.__version__.partition('-')[0]}"
        metadata = {
            "made_by": made_by(source, text + (" (weights in FP16)" if job.config["compress"] == "fp16" else "")),
            "opset": source.artifact.metadata.get("opset"),
            "fixed_axes": fixed,
            "notes": list(source.artifact.metadata.get("notes") or ()),
        }
        return Draft("openvino", found, metadata)


def _refuse_types(signature: Signature, place: Place) -> None:
    """Refuse what Triton's backend cannot carry (openvino_backend: its types, and README, Known Issues)."""
    for tensor in (*signature.inputs, *signature.outputs):
        if tensor.datatype in ("BYTES", "BF16", "FP64"):
            raise CheckFailed(
                f"the openvino backend cannot carry {tensor.datatype}",
                place=place,
                found=str(tensor),
                hint="serve it with onnxruntime, or keep that part in a Python model",
            )
        if not tensor.shape:
            raise CheckFailed(
                "the openvino backend carries no scalars",
                place=place,
                found=str(tensor),
                hint="export the model with one axis of size 1 there, or serve it with onnxruntime",
            )


def _named_sizes(signature: Signature, shapes: Mapping[str, int], place: Place) -> dict[str, int]:
    """The sizes of ``shapes`` by the model's own names of its dynamic axes."""
    axes = {dim: dim for tensor in signature.inputs for dim in tensor.shape if isinstance(dim, str)}
    if signature.batched:
        for tensor in signature.inputs:
            axes.setdefault(BATCH, str(tensor.shape[0]))
    sizes = {}
    for name, size in shapes.items():
        if name not in axes:
            raise CheckFailed(
                f"`openvino.shapes` fixes '{name}', which is no dynamic axis of the inputs",
                place=place,
                found="; ".join(map(str, signature.inputs)),
                hint=did_you_mean(name, axes),
            )
        sizes[axes[name]] = int(size)
    if signature.batched and BATCH in shapes:
        sizes.update({str(tensor.shape[0]): int(shapes[BATCH]) for tensor in signature.inputs})
    return sizes


def _read(path: Path, place: Place) -> openvino.Model:
    import openvino

    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        text = str(error)
    lacks = [name for match in _LACKS.finditer(text) for name in match.group(1).split(", ")]
    fails = [name for match in _FAILS.finditer(text) for name in match.group(1).split(", ")]
    version = openvino.__version__.partition("-")[0]
    if lacks:
        raise CheckFailed(
            f"OpenVINO {version} lacks operators that the model uses",
            place=place,
            found=", ".join(sorted(lacks)),
            details=[f"others that it could not convert: {', '.join(sorted(fails))}"] if fails else [],
            hint="serve it with onnxruntime, which has them",
        ) from None
    raise CheckFailed(
        f"OpenVINO {version} cannot convert the model" + (f": {', '.join(sorted(fails))}" if fails else ""),
        place=place,
        found=" ".join(text.split())[:600],
        hint="serve it with onnxruntime, or `simplify: true` first",
    ) from None


def _ports(model: openvino.Model) -> dict[str, Any]:
    return {name: port for port in (*model.inputs, *model.outputs) for name in port.get_names()}


def _fix_names(model: openvino.Model, signature: Signature, place: Place) -> None:
    """Give every input and output just its name of the signature: Triton's backend goes by ``get_any_name``."""
    ports = _ports(model)
    for tensor in (*signature.inputs, *signature.outputs):
        port = ports.get(tensor.name)
        if port is None:
            raise CheckFailed(
                f"OpenVINO lost '{tensor.name}'", place=place, found=", ".join(sorted(ports)) or "no named tensors"
            )
        if port.get_names() != {tensor.name}:
            port.get_tensor().set_names({tensor.name})


def _reshape(model: openvino.Model, signature: Signature, sizes: Mapping[str, int], place: Place) -> None:
    import openvino

    ports = {name: port for port in model.inputs for name in port.get_names()}
    shapes = {
        ports[tensor.name]: openvino.PartialShape(
            [sizes.get(dim, -1) if isinstance(dim, str) else dim for dim in tensor.shape]
        )
        for tensor in signature.inputs
    }
    try:
        model.reshape(shapes)
    except RuntimeError as error:
        raise CheckFailed(
            "the model cannot take the sizes of `openvino.shapes`",
            place=place,
            expected=", ".join(f"{axis} {size}" for axis, size in sizes.items()),
            found=" ".join(str(error).split())[:400],
        ) from None


def _signature(model: openvino.Model, source: Signature, sizes: Mapping[str, int], place: Place) -> Signature:
    """The signature as the IR states it, with the source's names of axes.

    Inputs keep every dynamic axis that ``sizes`` does not fix. Outputs have the sizes that OpenVINO found: Triton's
    backend compares them exactly.
    """
    ports = {
        "inputs": {name: port for port in model.inputs for name in port.get_names()},
        "outputs": {name: port for port in model.outputs for name in port.get_names()},
    }
    batch = {tensor.shape[0] for tensor in (*source.inputs, *source.outputs)} if source.batched else set()
    still_batched = source.batched and not batch & sizes.keys()

    def one(tensor: Tensor, kind: str) -> Tensor:
        port = ports[kind][tensor.name]
        found = datatype_of(port)
        shape = [dim.get_length() if dim.is_static else None for dim in port.partial_shape]
        wanted: tuple[Dim, ...] = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.shape)
        if found != tensor.datatype or len(shape) != len(wanted):
            raise CheckFailed(
                f"OpenVINO made another tensor of '{tensor.name}'",
                place=place,
                expected=str(tensor),
                found=f"{found}, rank {len(shape)}",
            )
        if kind == "inputs" or still_batched:
            for axis, (dim, now) in enumerate(zip(wanted, shape, strict=True)):
                lost = isinstance(dim, str) and now is not None
                if lost and (kind == "inputs" or axis == 0):
                    raise CheckFailed(
                        f"OpenVINO lost the dynamic axis {axis} ({dim}) of '{tensor.name}': it is fixed to {now}",
                        place=place,
                        hint="fix it on purpose with `openvino.shapes`, or serve the model with onnxruntime",
                    )
        named: list[Dim] = []
        for axis, (dim, now) in enumerate(zip(wanted, shape, strict=True)):
            named.append(now if now is not None else dim if isinstance(dim, str) else f"?{tensor.name}.{axis}")
        return replace(tensor, shape=tuple(named))

    return Signature(
        tuple(one(tensor, "inputs") for tensor in source.inputs),
        tuple(one(tensor, "outputs") for tensor in source.outputs),
        still_batched,
    )


def _batched(found: Signature, batching: str, place: Place) -> Signature:
    """Whether Triton batches: its backend pads tensors of fixed shapes alone (``openvino.cc``, SetInputTensors)."""
    if batching == "none":
        return replace(found, batched=False)
    dynamic = sorted({dim for tensor in found.inputs for dim in tensor.shape[1:] if isinstance(dim, str)})
    if dynamic:
        raise CheckFailed(
            "`openvino.batching: padded` needs fixed sizes of all axes but the batch",
            place=place,
            found=f"dynamic: {', '.join(dynamic)}",
            hint="fix them with `openvino.shapes`, or drop `batching`",
        )
    return found


def _number_anew(path: Path) -> None:
    """Name layers that OpenVINO numbered by their place instead: it counts on from whatever the process made before."""
    tree = ElementTree.parse(path)  # noqa: S314 - OpenVINO wrote it a moment ago
    for place, layer in enumerate(tree.iter("layer")):
        name = layer.get("name", "")
        if _COUNTED.match(name) and layer.get("type") not in ("Parameter", "Result"):
            layer.set("name", f"{name.rpartition('_')[0]}.{place}")
    tree.write(path, encoding="utf-8", xml_declaration=True)
