"""``stateful``: an ONNX graph whose states, context and constants are such as Triton's implicit state needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.datatypes import exact_array
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.sequence import Split, State, split
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.onnx_session import open_session, run_session
from tritonforge.runners.probe import find_batch
from tritonforge.sources.onnx_file import parse
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.optimize.stateful_graph import (
    add_context,
    make_constant,
    move_batch_first,
    oldest_opset,
    value_info,
)
from tritonforge.steps.step import Job, Needs

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Kept:
    """A state with the names that its two tensors have in the served graph."""

    state: State
    input: str
    output: str


class Stateful:
    """Makes constants part of the graph, gives inputs with a context a state of their own, and puts batch axes first.

    The configuration has ``sequence`` (the spec's key as data), ``inputs`` and ``outputs`` (refinements of what clients
    see), ``batched``, ``axes`` and ``ranges`` (for a run that shows whether rows are independent). The artifact's
    signature holds the states, ``metadata["states"]`` lists them: clients see neither.
    """

    name = "stateful"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 4 * input_bytes, tools=("onnx", "onnxruntime"))

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        assert source.artifact.signature is not None
        place = Place(source.folder / MODEL)
        model = parse(source.folder / MODEL)
        oldest_opset(model, place)
        parts = split(source.artifact.signature, job.config["sequence"], job.config["batched"], place)
        clients = refine(parts.clients, job.config["inputs"], job.config["outputs"], place)
        kept = name_states(parts, taken_names(model))
        signature = _edit(model, parts, clients, kept, job.config["sequence"]["constants"], place)
        for path in source.artifact.metadata.get("external") or ():
            place_file(source.folder / path, inside(job.out, path))
        (job.out / MODEL).write_bytes(model.SerializeToString(deterministic=True))
        _independent_rows(job, signature, place)
        metadata = {
            **source.artifact.metadata,
            "ir_version": model.ir_version,
            "sequence_batched": signature.batched,
            "states": [
                {
                    "input": item.input,
                    "output": item.output,
                    "datatype": item.state.datatype,
                    "dims": list(item.state.dims()),
                }
                for item in kept
            ],
            "controls": [
                {"kind": kind, "name": tensor.name, "datatype": tensor.datatype}
                for kind, tensor in parts.controls.items()
            ],
        }
        for item in kept:
            print(f"state {item.input} <- {item.output}: {item.state.datatype}{list(item.state.dims())}")  # noqa: T201
        return Draft("onnx", signature, metadata)


def taken_names(model: onnx.ModelProto) -> set[str]:
    """Every name in the graph itself; those of subgraphs need not differ from what is added here, but do."""
    graph = model.graph
    names = {item.name for item in (*graph.input, *graph.output)} | {item.name for item in graph.initializer}
    return names | {name for node in graph.node for name in (*node.input, *node.output)}


def name_states(parts: Split, taken: set[str]) -> tuple[Kept, ...]:
    """The states under the names that they get, so that inputs and outputs come in one order when sorted by name.

    Triton's core pairs the states' outputs with their inputs by their places in two maps sorted by name
    (``sequence_state.cc``, ``SequenceStates::OutputState``): in another order it would swap two states.
    """

    def free(wanted: str) -> str:
        while wanted in taken:
            wanted += "_"
        taken.add(wanted)
        return wanted

    plain = []
    for state in parts.states:
        if state.context:
            plain.append(Kept(state, free(f"{state.input}_context"), free(f"{state.input}_context_next")))
        elif state.batch_axis in (None, 0):
            plain.append(Kept(state, state.input, state.output))
        else:
            plain.append(Kept(state, free(f"{state.input}_batched"), free(f"{state.input}_batched_next")))
    if in_one_order([(item.input, item.output) for item in plain]):
        return tuple(plain)
    width = len(str(len(plain)))
    return tuple(
        Kept(state, free(f"state{index:0{width}}"), free(f"state{index:0{width}}_next"))
        for index, state in enumerate(parts.states)
    )


def in_one_order(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether inputs and outputs of states pair up when each are sorted by name."""
    return sorted(output for _, output in pairs) == [output for _, output in sorted(pairs)]


def _edit(
    model: onnx.ModelProto,
    parts: Split,
    clients: Signature,
    kept: Sequence[Kept],
    constants: Mapping[str, Any],
    place: Place,
) -> Signature:
    """Change the graph, and its inputs and outputs to clients' tensors, states, controls; the whole signature."""
    batch: tuple[Dim, ...] = ()
    if clients.batched:
        first = clients.inputs[0].shape[0]
        batch = (first if isinstance(first, str) and not first.startswith("?") else "batch",)
    inputs = [_with_batch(tensor, batch) for tensor in clients.inputs]
    outputs = [_with_batch(tensor, batch) for tensor in clients.outputs]
    for name, tensor in parts.constants.items():
        make_constant(model, name, _constant(tensor, constants[name], place))
    for item in kept:
        shape = (*batch, *item.state.dims())
        if item.state.context:
            rank = len(item.state.shape)
            add_context(model, item.state.input, item.input, item.output, item.state.context, rank)
        elif item.input != item.state.input:
            move_batch_first(
                model,
                (item.state.input, item.input),
                (item.state.output, item.output),
                item.state.batch_axis,
                len(item.state.shape),
            )
        inputs.append(Tensor(item.input, item.state.datatype, shape))
        outputs.append(Tensor(item.output, item.state.datatype, shape))
    inputs += [_with_batch(tensor, batch) for tensor in parts.controls.values()]
    del model.graph.input[:]
    del model.graph.output[:]
    model.graph.input.extend(value_info(tensor) for tensor in inputs)
    model.graph.output.extend(value_info(tensor) for tensor in outputs)
    return Signature(tuple(inputs), tuple(outputs), clients.batched)


def _with_batch(tensor: Tensor, batch: tuple[Dim, ...]) -> Tensor:
    return replace(tensor, shape=(*batch, *tensor.shape[1:])) if batch else tensor


def _constant(tensor: Tensor, value: Any, place: Place) -> Any:
    """The value of an input as an array of its type and shape; one number fills the whole shape."""
    import numpy as np

    try:
        array = exact_array(value, tensor.datatype)
    except (ValueError, TypeError, OverflowError) as error:
        raise CheckFailed(
            f"`sequence.constants.{tensor.name}` is no value of the input",
            place=place,
            expected=str(tensor),
            found=f"{value} ({error})",
        ) from None
    if array.ndim == 0 and all(isinstance(dim, int) for dim in tensor.shape):
        return np.full([int(dim) for dim in tensor.shape], array[()], array.dtype)
    if len(array.shape) == len(tensor.shape) and all(
        own == size or isinstance(own, str) for own, size in zip(tensor.shape, array.shape, strict=True)
    ):
        return array
    raise CheckFailed(
        f"`sequence.constants.{tensor.name}` has another shape than the input",
        place=place,
        expected=str(tensor),
        found=str(list(array.shape)),
    )


def _independent_rows(job: Job, signature: Signature, place: Place) -> None:
    """Run the graph: it must load, and the rows of a batch, which are other sequences, must not touch each other.

    Raises:
        CheckFailed: it does not load or run, or its rows depend on each other.
    """
    session = open_session(job.out / MODEL, optimise=False, place=place)
    if not signature.batched:
        return
    found = find_batch(
        lambda feeds: run_session(session, dict(feeds), Place()),
        signature,
        axes=job.config["axes"],
        ranges=job.config["ranges"],
    )
    if not found.signature.batched:
        raise CheckFailed(
            "sequences cannot share a batch of this model",
            place=place,
            found="; ".join(found.notes),
            hint="say `batched: false`: each sequence then runs alone",
        )
