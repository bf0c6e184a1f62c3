"""Checks of inputs, outputs, batch inputs and batch outputs against the signature and against core's rules.

Source: core ``ValidateIOShape``, ``ValidateModelInput``, ``ValidateNonLinearFormatIO``, ``ValidateBatchIO``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tritonforge.artifact.signature import Tensor
from tritonforge.errors import did_you_mean
from tritonforge.repository.derive import datatype_name
from tritonforge.repository.schema import Path_
from tritonforge.repository.subject import Subject


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    signature = subject.request.signature
    for side, items, tensors in (
        ("input", subject.message.input, signature.inputs),
        ("output", subject.message.output, signature.outputs),
    ):
        known = {tensor.name: tensor for tensor in tensors}
        for index, item in enumerate(items):
            path: Path_ = (side, index)
            if item.name not in known:
                raise subject.wrong(
                    (*path, "name"),
                    f"the model has no {side} '{item.name}'",
                    hint=did_you_mean(item.name, known) or "tensors cannot be renamed by a config",
                )
            _against_signature(subject, item, known[item.name], path)
            _shape(subject, item, path)
            _backend_rules(subject, item, path)
    for index, item in enumerate(subject.message.input):
        if item.format and len(item.dims) != 3:
            raise subject.wrong(
                ("input", index, "format"),
                "an image format is for three dims",
                expected="3 dims",
                found=list(item.dims),
            )
    _batch_inputs(subject)
    _batch_outputs(subject)


def _against_signature(subject: Subject, item: Any, tensor: Tensor, path: Path_) -> None:
    actual = datatype_name(item.data_type) if item.data_type else "none"
    if actual != tensor.datatype:
        raise subject.wrong(
            (*path, "data_type"),
            f"the type of '{item.name}' is not the model's",
            expected=tensor.datatype,
            found=actual,
            hint="a config cannot convert: the backend would refuse the model, or misread its bytes",
        )
    own = tensor.dims(subject.batching)
    # What the model sees: after the reshape, where there is one.
    seen = list(item.reshape.shape) if item.HasField("reshape") else list(item.dims)
    as_sent = not subject.batching or not subject.request.reshape_scalars
    if not own and seen == [1] and as_sent:
        return
    fits = len(own) == len(seen) and all(want in (-1, have) for want, have in zip(own, seen, strict=True))
    if not fits:
        field = "reshape" if item.HasField("reshape") else "dims"
        raise subject.wrong(
            (*path, field),
            f"the shape of '{item.name}' is not the model's",
            expected=f"{list(own)}, where -1 may be fixed" + (" (without the batch axis)" if subject.batching else ""),
            found=seen,
            hint=None if field == "reshape" else "add a `reshape` if clients shall see another shape",
        )


def _shape(subject: Subject, item: Any, path: Path_) -> None:
    if not item.dims:
        raise subject.wrong((*path, "dims"), f"'{item.name}' has no dims", expected="[1] for one value")
    for dims, field in ((item.dims, "dims"), (item.reshape.shape, "reshape")):
        for dim in dims:
            if dim < 1 and dim != -1:
                raise subject.wrong((*path, field), "a dim is out of range", expected="1 or more, or -1", found=dim)
    if not item.HasField("reshape"):
        return
    if not item.reshape.shape and not subject.batching:
        raise subject.wrong(
            (*path, "reshape"),
            f"'{item.name}' cannot be reshaped to a scalar: the model does not batch",
            expected="no reshape",
            hint="Triton takes scalars only behind a batch axis",
        )
    if _chunks(item.dims) != _chunks(item.reshape.shape):
        raise subject.wrong(
            (*path, "reshape"),
            f"the reshape of '{item.name}' changes how many values there are",
            expected=f"as many as {list(item.dims)} has, between the same -1 axes",
            found=list(item.reshape.shape),
        )


def _chunks(dims: Sequence[int]) -> list[int]:
    """The number of values before, between and after the dynamic axes."""
    counts = [1]
    for dim in dims:
        if dim == -1:
            counts.append(1)
        else:
            counts[-1] *= dim
    return counts


def _backend_rules(subject: Subject, item: Any, path: Path_) -> None:
    for field, what in (("is_shape_tensor", "shape tensors"), ("is_non_linear_format_io", "non-linear formats")):
        if getattr(item, field, False) and subject.request.backend != "tensorrt":
            raise subject.wrong(
                (*path, field), f"only TensorRT has {what}", expected="backend tensorrt", found=subject.request.backend
            )
    if getattr(item, "is_non_linear_format_io", False) and len(item.dims) != 3:
        raise subject.wrong(
            (*path, "is_non_linear_format_io"),
            "a non-linear format is for three dims",
            expected="3 dims",
            found=list(item.dims),
        )


def _batch_inputs(subject: Subject) -> None:
    inputs = {item.name for item in subject.message.input}
    model_inputs = {tensor.name for tensor in subject.request.signature.inputs}
    for index, item in enumerate(subject.message.batch_input):
        path: Path_ = ("batch_input", index)
        _one_source(subject, item, inputs, path)
        actual = datatype_name(item.data_type) if item.data_type else "none"
        if actual not in ("INT32", "FP32"):
            raise subject.wrong(
                (*path, "data_type"), "a batch input has no such type", expected="TYPE_INT32 or TYPE_FP32", found=actual
            )
        for number, name in enumerate(item.target_name):
            if name not in model_inputs:
                raise subject.wrong(
                    (*path, "target_name", number),
                    f"the model has no input '{name}'",
                    hint=did_you_mean(name, model_inputs),
                )


def _batch_outputs(subject: Subject) -> None:
    inputs = {item.name for item in subject.message.input}
    outputs = {item.name for item in subject.message.output}
    for index, item in enumerate(subject.message.batch_output):
        path: Path_ = ("batch_output", index)
        _one_source(subject, item, inputs, path)
        for number, name in enumerate(item.target_name):
            where = (*path, "target_name", number)
            if name not in outputs:
                raise subject.wrong(where, f"the model has no output '{name}'", hint=did_you_mean(name, outputs))
            if name in item.target_name[:number]:
                raise subject.wrong(where, f"the output '{name}' stands twice")


def _one_source(subject: Subject, item: Any, inputs: set[str], path: Path_) -> None:
    where = (*path, "source_input")
    if len(item.source_input) != 1:
        kind = item.Kind.Name(item.kind)
        raise subject.wrong(
            where, f"{kind} is computed from one input", expected="one name", found=list(item.source_input)
        )
    if item.source_input[0] not in inputs:
        raise subject.wrong(
            where, f"there is no input '{item.source_input[0]}'", hint=did_you_mean(item.source_input[0], inputs)
        )
