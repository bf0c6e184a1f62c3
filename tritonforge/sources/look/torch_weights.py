"""Look at weights or a pickled object of PyTorch, or at safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritonforge.errors import Place
from tritonforge.sources.look.facts import Memory, ModelFacts, axis_sizes
from tritonforge.sources.look.torch_types import add_up
from tritonforge.sources.torch_file import read


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the tensors in a file; there is no graph in it, so that inputs and outputs are not known.

    Raises:
        CheckFailed: truncated or malformed.
        UsageError: an axis was given; weights have none.
    """
    found = read(path)
    stored = add_up(found.tensors)
    notes = []
    if found.kind == "torch-pickle":
        notes.append(f"loading it would import {', '.join(found.unsafe_globals[:8])}; it was read without doing so")
    tied = sum(item.tied_to is not None for item in found.tensors)
    if tied:
        notes.append(f"{tied} tensors share the bytes of others and are counted once")
    if stored.training:
        notes.append(f"{stored.training} tensors belong to an optimizer and are not counted")
    return ModelFacts(
        format=found.kind,
        path=path,
        files={path.name: path.stat().st_size},
        sizes=axis_sizes((), axes, Place(path)),
        parameters=stored.parameters,
        weight_types=stored.types,
        memory=Memory(stored.bytes),
        globals=found.globals,
        notes=tuple(notes),
    )
