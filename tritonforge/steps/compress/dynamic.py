"""Dynamic INT8: weights of MatMul and Gemm in eight bits, activations scaled at run time (ONNX Runtime)."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.runners.onnx import MODEL
from tritonforge.sources.onnx_file import nodes_of
from tritonforge.steps.onnx_files import (
    drop_unused_domains,
    external_of,
    kept_draft,
    load_whole,
    made_by,
    refuse_large,
    write,
)
from tritonforge.steps.step import Job

if TYPE_CHECKING:
    import onnx

TOOLS: Final = ("onnx", "onnxruntime", "onnxslim")
MEMORY: Final = 6

_QUANTIZABLE: Final = ("MatMul", "Gemm")
_QUANTIZED: Final = ("MatMulInteger", "DynamicQuantizeMatMul", "QGemm", "MatMulIntegerToFloat")
_WHY: Final = {
    "Conv": "convolutions want static quantisation with calibration data: dynamic scales make them slower",
    "LSTM": "recurrent layers stay as they are in this mode",
    "GRU": "recurrent layers stay as they are in this mode",
}


def quantize(job: Job) -> Draft:
    """See :class:`tritonforge.steps.compress.quantize.Mode`.

    onnxslim comes first: shapes that a PyTorch export left in ``value_info`` contradict what quantisation inserts.
    """
    import onnxruntime
    import onnxslim
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = job.inputs["model"]
    refuse_large(source, "quantize", "quantise a smaller part, or a model of less than 2 GiB")
    path = source.folder / MODEL
    whole = load_whole(path)
    before, weights = Counter(node.op_type for node in nodes_of(whole)), _weight_bytes(whole)
    names = {node.name for node in nodes_of(whole)}
    slim = onnxslim.slim(whole)
    _check_excluded(job.config["exclude"], names, slim, path)
    with tempfile.TemporaryDirectory(prefix="tritonforge-", dir=job.out.parent) as scratch:
        target = Path(scratch) / MODEL
        logging.disable(logging.WARNING)  # it recommends its own pre-processing, which onnxslim stands in for
        try:
            quantize_dynamic(
                slim,
                str(target),
                op_types_to_quantize=list(_QUANTIZABLE),
                per_channel=bool(job.config["per_channel"]),
                reduce_range=bool(job.config["reduce_range"]),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(job.config["exclude"]),
                use_external_data_format=bool(external_of(source)),
            )
        finally:
            logging.disable(logging.NOTSET)
        made = load_whole(target)
    drop_unused_domains(made)
    after = Counter(node.op_type for node in nodes_of(made))
    converted = sum(after[name] - before[name] for name in _QUANTIZED)
    if converted <= 0:
        raise _nothing(before, path)
    counts = {"converted": converted, "left": sum(after[name] for name in _QUANTIZABLE)}
    sizes = {"before": weights, "after": _weight_bytes(made)}
    write(made, job.out, external=bool(external_of(source)))
    print(  # noqa: T201 - the step's log
        f"{converted} of {converted + counts['left']} MatMul and Gemm in INT8; "
        f"weights {sizes['before']} bytes before, {sizes['after']} after"
    )
    return kept_draft(
        job,
        "the quantised model",
        "export the model with an opset from 13 upward",
        made_by=made_by(source, f"onnxruntime {onnxruntime.__version__} (dynamic INT8)"),
        quantized={"mode": "dynamic", "nodes": counts, "weight_bytes": sizes},
    )


def _check_excluded(excluded: Iterable[str], names: set[str], slim: onnx.ModelProto, path: Path) -> None:
    """Refuse names of nodes that are not there, or that simplification made part of another node."""
    left = {node.name for node in nodes_of(slim)}
    for name in excluded:
        if name in left:
            continue
        gone = "which onnxslim makes part of another node" if name in names else "which is no node of the model"
        raise CheckFailed(
            f"`quantize.exclude` names '{name}', {gone}",
            place=Place(path),
            hint=did_you_mean(name, left) or "Netron shows the names of nodes",
        )


def _nothing(before: Counter[str], path: Path) -> CheckFailed:
    """What to say of a model in which nothing was converted."""
    there = ", ".join(f"{count} {name}" for name, count in before.most_common(6))
    reasons = [text for name, text in _WHY.items() if before[name]]
    if any(before[name] for name in _QUANTIZABLE):
        reasons.append("its MatMul and Gemm multiply computed values, or are excluded: there is no weight to convert")
    return CheckFailed(
        "`quantize` changed nothing: the model has no MatMul or Gemm with constant weights",
        place=Place(path),
        found=there,
        details=reasons,
        hint="drop `quantize` for this model",
    )


def _weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initialisers and constants."""
    from onnx.external_data_helper import _get_all_tensors

    return sum(_tensor_bytes(tensor) for tensor in _get_all_tensors(model))


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    import math

    from onnx import TensorProto, helper

    if tensor.data_type == TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    return math.prod(tensor.dims) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
