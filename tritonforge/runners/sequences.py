"""Runs a model over a sequence: request after request from a zero state, with the states carried along.

Arrays of a sequence have the requests on a leading axis of their own: ``[requests, batch, …]``. With a batch, its rows
are so many sequences side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.sequence import Split, State
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import Runner, Tensors

if TYPE_CHECKING:
    import numpy as np


class SourceSequences:
    """A source as its author runs it: context in front of the chunk, constants beside it, states handed on.

    ``values`` are those of the constants.
    """

    def __init__(self, runner: Runner, parts: Split, values: Mapping[str, Any]) -> None:
        self.runner = runner
        self.parts = parts
        self.values = values
        self.title = runner.title

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """The outputs of every request, stacked.

        Raises:
            CheckFailed: the source cannot answer one of them, or changes a state's shape.
        """
        import numpy as np

        parts = self.parts
        count = _count(inputs)
        batch = next(iter(inputs.values())).shape[1] if parts.clients.batched else 1
        fixed = {
            name: np.full([d if isinstance(d, int) else batch for d in tensor.shape], value, _dtype(tensor.datatype))
            if np.ndim(value) == 0
            else np.asarray(value, _dtype(tensor.datatype))
            for name, tensor in parts.constants.items()
            for value in (self.values[name],)
        }
        own = [state for state in parts.states if not state.context]
        contexts = {state.input: state for state in parts.states if state.context}
        memory = {state.input: np.zeros(state.source_shape(batch), _dtype(state.datatype)) for state in own}
        tails = {name: _zero_context(state, inputs[name]) for name, state in contexts.items()}
        answers: list[Tensors] = []
        for step in range(count):
            feeds = {name: array[step] for name, array in inputs.items()}
            for name, state in contexts.items():
                feeds[name] = np.concatenate([tails[name], feeds[name]], axis=-1)
                tails[name] = feeds[name][..., -state.context :]
            controls = {
                tensor.name: np.full(_sizes(tensor.shape, batch), _flag(kind, step, count), _dtype(tensor.datatype))
                for kind, tensor in parts.controls.items()
            }
            found = self.runner.run({**feeds, **fixed, **memory, **controls})
            for state in own:
                after = found.pop(state.output)
                _same_shape(state.input, memory[state.input].shape, after.shape)
                memory[state.input] = after
            answers.append({tensor.name: found[tensor.name] for tensor in parts.clients.outputs})
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


class CarryingRunner:
    """An artefact with states (``metadata["states"]``), run as Triton runs it: an input gets its output's last value.

    Inputs and outputs are those of clients, as :class:`SourceSequences` takes and gives them.
    """

    def __init__(self, runner: Runner, metadata: Mapping[str, Any]) -> None:
        self.runner = runner
        self.states = metadata["states"]
        self.controls = metadata.get("controls") or []
        self.batched = bool(metadata["sequence_batched"])
        self.title = runner.title

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :meth:`SourceSequences.run`."""
        import numpy as np

        count = _count(inputs)
        lead = (next(iter(inputs.values())).shape[1],) if self.batched else ()
        memory = {state["input"]: np.zeros((*lead, *state["dims"]), _dtype(state["datatype"])) for state in self.states}
        answers: list[Tensors] = []
        for step in range(count):
            feeds = {name: array[step] for name, array in inputs.items()}
            for control in self.controls:
                value = _flag(control["kind"], step, count)
                feeds[control["name"]] = np.full((*lead, 1), value, _dtype(control["datatype"]))
            found = self.runner.run({**feeds, **memory})
            for state in self.states:
                after = found.pop(state["output"])
                _same_shape(state["input"], memory[state["input"]].shape, after.shape)
                memory[state["input"]] = after
            answers.append(found)
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def _count(inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
    counts = {array.shape[0] for array in inputs.values()}
    if len(counts) != 1:
        raise CheckFailed("the inputs of a sequence have different numbers of requests", found=str(sorted(counts)))
    return int(counts.pop())


def _zero_context(state: State, chunks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.zeros((*chunks.shape[1:-1], state.context), _dtype(state.datatype))


def _same_shape(name: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if before != after:
        raise CheckFailed(f"the state '{name}' changes its shape", expected=str(list(before)), found=str(list(after)))


def _flag(kind: str, step: int, count: int) -> int:
    return int({"start": step == 0, "end": step == count - 1, "ready": True, "correlation": True}[kind])


def _sizes(shape: tuple[Any, ...], batch: int) -> list[int]:
    return [dim if isinstance(dim, int) else batch for dim in shape]


def _dtype(datatype: str) -> Any:
    import numpy as np

    return np.dtype(BY_NAME[datatype].numpy or "float32")
