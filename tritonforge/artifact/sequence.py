"""What a sequence keeps between its requests, and which tensors of a model are left for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place, did_you_mean

CONTROLS: Final[Mapping[str, tuple[str, ...]]] = {
    "start": ("INT32", "FP32", "BOOL"),
    "end": ("INT32", "FP32", "BOOL"),
    "ready": ("INT32", "FP32", "BOOL"),
    "correlation": ("UINT64", "INT64", "UINT32", "INT32"),
}
"""The control inputs of Triton's sequence batcher, and the types that they may have (strings as ids are left out)."""


@dataclass(frozen=True, slots=True)
class State:
    """An input that gets an output of the sequence's request before.

    ``shape`` is as the source has it, with the batch at ``batch_axis`` (None where there is none); ``context`` is how
    many last values of an input it holds, 0 for a state of the model itself.
    """

    input: str
    output: str
    datatype: str
    shape: tuple[Dim, ...]
    batch_axis: int | None
    context: int = 0

    def source_shape(self, batch: int) -> tuple[int, ...]:
        """The shape that the source takes for so many sequences at once."""
        return tuple(
            batch if axis == self.batch_axis else int(dim) if isinstance(dim, int) else 1
            for axis, dim in enumerate(self.shape)
        )

    def dims(self) -> tuple[int, ...]:
        """The shape of one sequence, without the batch axis."""
        return tuple(size for axis, size in enumerate(self.source_shape(1)) if axis != self.batch_axis)


@dataclass(frozen=True, slots=True)
class Split:
    """A model's tensors by who provides them: ``clients`` is what requests hold, ``states`` what Triton keeps.

    ``constants`` are inputs with one value; ``controls`` are inputs that Triton fills in, by their kind.
    """

    clients: Signature
    states: tuple[State, ...]
    constants: Mapping[str, Tensor]
    controls: Mapping[str, Tensor]


def split(source: Signature, sequence: Mapping[str, Any], batched: bool | None, place: Place) -> Split:
    """Sort the tensors of ``source`` as ``sequence`` (the spec's key, as data) says.

    ``batched`` None asks whether the shapes allow a batch: axis 0 of every tensor of clients is dynamic, and every
    state has an axis for it.

    Raises:
        CheckFailed: the model has no such tensor, or a state cannot be one.
    """
    states = [_state(source, name, stated, place) for name, stated in sequence["states"].items()]
    contexts = [_context(source, name, width, place) for name, width in sequence["context"].items()]
    constants = {name: _named(source.inputs, name, "input", place) for name in sequence["constants"]}
    controls = {kind: _named(source.inputs, name, "input", place) for kind, name in sequence["controls"].items()}
    for kind, tensor in controls.items():
        if tensor.datatype not in CONTROLS[kind]:
            raise CheckFailed(
                f"the input '{tensor.name}' cannot be the control `{kind}`",
                place=place,
                expected=" or ".join(CONTROLS[kind]),
                found=tensor.datatype,
            )
    inner = {state.input for state in states} | constants.keys() | {tensor.name for tensor in controls.values()}
    inputs = tuple(tensor for tensor in source.inputs if tensor.name not in inner)
    outputs = tuple(tensor for tensor in source.outputs if tensor.name not in {state.output for state in states})
    if not inputs or not outputs:
        raise CheckFailed(
            "nothing is left for clients",
            place=place,
            found=f"{len(inputs)} inputs and {len(outputs)} outputs besides states, constants and controls",
        )
    can = all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in (*inputs, *outputs)) and all(
        state.batch_axis is not None for state in (*states, *contexts)
    )
    if batched and not can:
        raise CheckFailed(
            "`batched: true`, but not every tensor has a dynamic axis for the batch",
            place=place,
            found="; ".join(
                str(tensor) for tensor in (*inputs, *outputs, *source.inputs) if tensor.name not in constants
            ),
            hint="drop `batched`, or say where a state has it with `states: {NAME: {output: …, batch_axis: …}}`",
        )
    is_batch = can if batched is None else batched
    inputs = tuple(_without_context(tensor, sequence["context"].get(tensor.name, 0), place) for tensor in inputs)
    if not is_batch:
        states = [replace(state, batch_axis=None) for state in states]
        contexts = [replace(state, batch_axis=None) for state in contexts]
    return Split(Signature(inputs, outputs, is_batch), (*states, *contexts), constants, controls)


def _named(tensors: Sequence[Tensor], name: str, kind: str, place: Place) -> Tensor:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise CheckFailed(
        f"the model has no {kind} '{name}'", place=place, hint=did_you_mean(name, (tensor.name for tensor in tensors))
    )


def _state(source: Signature, name: str, stated: Mapping[str, Any], place: Place) -> State:
    tensor = _named(source.inputs, name, "input", place)
    after = _named(source.outputs, stated["output"], "output", place)
    if tensor.datatype != after.datatype or len(tensor.shape) != len(after.shape) or tensor.datatype == "BYTES":
        raise CheckFailed(
            f"'{after.name}' cannot be the next state of '{name}'",
            place=place,
            expected=f"numbers of one type and rank, as {tensor} has",
            found=str(after),
        )
    dynamic = [axis for axis, dim in enumerate(tensor.shape) if isinstance(dim, str)]
    axis = stated.get("batch_axis")
    if axis is None:
        axis = 0 if 0 in dynamic else dynamic[0] if len(dynamic) == 1 else None
    elif axis not in dynamic:
        raise CheckFailed(
            f"axis {axis} of the state '{name}' is no batch axis: its size is fixed", place=place, found=str(tensor)
        )
    if set(dynamic) - {axis}:
        raise CheckFailed(
            f"the state '{name}' has a dynamic axis besides the batch: no size says what it is at the start",
            place=place,
            found=str(tensor),
            expected="fixed sizes",
            hint="export the model with a fixed size there",
        )
    return State(name, after.name, tensor.datatype, tensor.shape, axis)


def _context(source: Signature, name: str, width: int, place: Place) -> State:
    tensor = _named(source.inputs, name, "input", place)
    middle = tensor.shape[1:-1]
    if not tensor.shape or any(isinstance(dim, str) for dim in middle) or tensor.datatype == "BYTES":
        raise CheckFailed(
            f"the input '{name}' cannot have a context",
            place=place,
            expected="numbers, with no dynamic axes but the first and the last",
            found=str(tensor),
        )
    batched = len(tensor.shape) > 1 and isinstance(tensor.shape[0], str)
    shape = (*tensor.shape[:-1], width)
    return State(name, name, tensor.datatype, shape, 0 if batched else None, width)


def _without_context(tensor: Tensor, width: int, place: Place) -> Tensor:
    """The chunk that clients send of an input with a context."""
    last = tensor.shape[-1] if tensor.shape else None
    if not width or not isinstance(last, int):
        return tensor
    if last <= width:
        raise CheckFailed(
            f"the context of '{tensor.name}' leaves nothing to send",
            place=place,
            found=str(tensor),
            expected=str(width),
        )
    return replace(tensor, shape=(*tensor.shape[:-1], last - width))
