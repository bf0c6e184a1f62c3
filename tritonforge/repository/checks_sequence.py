"""Checks of sequence batching: controls, states, strategies.

Source: core ``GetBooleanSequenceControlProperties``, ``GetTypedSequenceControlProperties`` and ``ValidateModelConfig``.
"""

from __future__ import annotations

from typing import Any

from tritonforge.artifact.signature import Tensor
from tritonforge.errors import did_you_mean
from tritonforge.repository.checks_scheduling import preferred
from tritonforge.repository.derive import datatype_name
from tritonforge.repository.schema import Path_
from tritonforge.repository.subject import Subject

_FLAGS = ("int32_false_true", "fp32_false_true", "bool_false_true")
_FLAG_TYPES = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}
_CORRELATION_TYPES = ("UINT64", "INT64", "UINT32", "INT32", "BYTES")


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    if not subject.message.HasField("sequence_batching"):
        return
    batching = subject.message.sequence_batching
    _controls(subject, batching)
    _states(subject, batching)
    if batching.HasField("oldest"):
        preferred(subject, batching.oldest.preferred_batch_size, ("sequence_batching", "oldest"))
    if batching.HasField("direct") and not 0 <= batching.direct.minimum_slot_utilization <= 1:
        raise subject.wrong(
            ("sequence_batching", "direct", "minimum_slot_utilization"),
            "`minimum_slot_utilization` is out of range",
            expected="0 to 1",
            found=batching.direct.minimum_slot_utilization,
        )


def _controls(subject: Subject, batching: Any) -> None:
    names: set[str] = set()
    kinds: dict[str, str] = {}
    for index, item in enumerate(batching.control_input):
        path: Path_ = ("sequence_batching", "control_input", index)
        if not item.name:
            raise subject.wrong(path, "a control input has no name", expected="name: the model's input")
        if item.name in names:
            raise subject.wrong((*path, "name"), f"'{item.name}' is a control input twice")
        names.add(item.name)
        tensor = _tensor(subject, (*path, "name"), item.name, subject.request.signature.inputs, "input")
        for number, control in enumerate(item.control):
            where = (*path, "control", number)
            kind = control.Kind.Name(control.kind)
            if kind in kinds:
                raise subject.wrong(where, f"{kind} is given to two inputs", found=f"'{kinds[kind]}' and '{item.name}'")
            kinds[kind] = item.name
            _control(subject, control, kind, tensor, where)


def _control(subject: Subject, control: Any, kind: str, tensor: Tensor, where: Path_) -> None:
    flags = [name for name in _FLAGS if len(getattr(control, name))]
    if kind == "CONTROL_SEQUENCE_CORRID":
        if flags:
            raise subject.wrong(
                (*where, flags[0]), f"{kind} takes no false and true values", expected="data_type alone"
            )
        name = datatype_name(control.data_type) if control.data_type else "none"
        if name not in _CORRELATION_TYPES:
            raise subject.wrong(
                where,
                f"{kind} has no such type",
                expected="one of TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32, TYPE_STRING",
                found=name,
            )
        actual = name
    else:
        if len(flags) != 1 or len(getattr(control, flags[0])) != 2:
            raise subject.wrong(
                where,
                f"{kind} says what false and true are, in one type",
                expected="one of " + ", ".join(f"{name}: [FALSE, TRUE]" for name in _FLAGS),
                found=", ".join(flags) or "none",
            )
        actual = _FLAG_TYPES[flags[0]]
    if tensor.datatype != actual:
        raise subject.wrong(
            where,
            f"the control's type is not that of the model's input '{tensor.name}'",
            expected=tensor.datatype,
            found=actual,
        )


def _states(subject: Subject, batching: Any) -> None:
    _pairs(subject, batching)
    for index, state in enumerate(batching.state):
        path: Path_ = ("sequence_batching", "state", index)
        for side, name, tensors in (
            ("input", state.input_name, subject.request.signature.inputs),
            ("output", state.output_name, subject.request.signature.outputs),
        ):
            tensor = _tensor(subject, (*path, f"{side}_name"), name, tensors, side)
            actual = datatype_name(state.data_type) if state.data_type else "none"
            if actual != tensor.datatype:
                raise subject.wrong(
                    (*path, "data_type"),
                    f"the state's type is not that of the model's {side} '{name}'",
                    expected=tensor.datatype,
                    found=actual,
                )
            dims = tensor.dims(subject.batching) or (1,)
            fits = len(dims) == len(state.dims) and all(
                want == have or -1 in (want, have) for want, have in zip(dims, state.dims, strict=True)
            )
            if not fits:
                raise subject.wrong(
                    (*path, "dims"),
                    f"the state's shape is not that of the model's {side} '{name}'",
                    expected=list(dims),
                    found=list(state.dims),
                )
        for number, initial in enumerate(state.initial_state):
            where = (*path, "initial_state", number)
            if not initial.name:
                raise subject.wrong(where, "an initial state has no name", expected="name: …")
            if initial.WhichOneof("state_data") is None:
                raise subject.wrong(where, "an initial state has no value", expected="zero_data: true, or data_file: …")


def _pairs(subject: Subject, batching: Any) -> None:
    """Core pairs outputs with inputs by their places in two maps sorted by name (``SequenceStates::OutputState``)."""
    pairs = sorted((state.input_name, state.output_name) for state in batching.state)
    outputs = sorted(output for _, output in pairs)
    for (name, output), other in zip(pairs, outputs, strict=True):
        if output != other:
            raise subject.wrong(
                ("sequence_batching", "state"),
                "Triton would give these states to each other's inputs: it pairs them in the order of their names",
                expected="inputs and outputs that stand in one order when each are sorted by name",
                found=f"'{name}' has the output '{output}', and would get '{other}'",
                hint="rename the model's tensors, or let `sequence:` do it",
            )


def _tensor(subject: Subject, path: Path_, name: str, tensors: tuple[Tensor, ...], side: str) -> Tensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise subject.wrong(
        path,
        f"the model has no {side} '{name}'",
        found=name or "no name",
        hint=did_you_mean(name, (tensor.name for tensor in tensors)),
    )
