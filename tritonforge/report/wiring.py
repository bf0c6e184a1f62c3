"""An ensemble as a graph of tensors: what makes each and what reads it, from the ``config.pbtxt`` that is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonforge.artifact.signature import Signature, Tensor


@dataclass(frozen=True, slots=True)
class Port:
    """Where a wire ends: a step by position, and the model's own name of the tensor; None is the ensemble itself."""

    step: int | None
    name: str


@dataclass(frozen=True, slots=True)
class Wire:
    """One tensor of the ensemble. ``source`` is None where nothing makes it; ``dims`` are without the batch axis."""

    tensor: str
    datatype: str | None
    dims: tuple[int, ...] | None
    source: Port | None
    targets: tuple[Port, ...]

    @property
    def type(self) -> str:
        """``FP32[-1,128]``; empty where neither end says it."""
        if self.datatype is None or self.dims is None:
            return ""
        return f"{self.datatype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step: the maps go from the model's own names to the ensemble's tensors."""

    model: str
    version: int
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EnsembleGraph:
    """The steps of an ensemble in the order of its config, and all its wires."""

    folder: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[GraphStep, ...]
    wires: tuple[Wire, ...]


def read_graph(folder: str, config: Any, signatures: Mapping[str, Signature]) -> EnsembleGraph:
    """The graph of an ensemble's parsed ``ModelConfig``; ``signatures`` are of all models of the release by folder."""
    steps = tuple(
        GraphStep(
            item.model_name,
            int(item.model_version),
            dict(sorted(item.input_map.items())),
            dict(sorted(item.output_map.items())),
        )
        for item in config.ensemble_scheduling.step
    )
    own = signatures.get(folder)
    inputs = tuple(item.name for item in config.input)
    outputs = tuple(item.name for item in config.output)
    sources: dict[str, Port] = {name: Port(None, name) for name in inputs}
    targets: dict[str, list[Port]] = {name: [] for name in inputs}
    types: dict[str, tuple[Tensor, bool]] = {}
    for index, step in enumerate(steps):
        signature = signatures.get(step.model)
        for name, tensor in step.output_map.items():
            sources[tensor] = Port(index, name)
            targets.setdefault(tensor, [])
            found = None if signature is None else signature.output(name)
            if signature is not None and found is not None:
                types[tensor] = (found, signature.batched)
    for index, step in enumerate(steps):
        signature = signatures.get(step.model)
        for name, tensor in step.input_map.items():
            targets.setdefault(tensor, []).append(Port(index, name))
            found = None if signature is None else signature.input(name)
            if signature is not None and found is not None:
                types.setdefault(tensor, (found, signature.batched))
    for name in outputs:
        targets.setdefault(name, []).append(Port(None, name))
    if own is not None:
        for declared in (*own.inputs, *own.outputs):
            types.setdefault(declared.name, (declared, own.batched))
    wires = []
    for tensor, ends in targets.items():
        known = types.get(tensor)
        datatype, dims = (None, None) if known is None else (known[0].datatype, known[0].dims(known[1]))
        wires.append(Wire(tensor, datatype, dims, sources.get(tensor), tuple(ends)))
    return EnsembleGraph(folder, inputs, outputs, steps, tuple(wires))
