"""Cases from the samples that an artifact brings, where generated inputs would say nothing: texts, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, read_cases

ITEM: Final = "item-"
LARGEST: Final = 16 * 2**20
"""Bytes of one case's answers: larger batches of large pictures would prove nothing more, and fill the disk."""


def sample_cases(folder: Path, signature: Signature, batches: Sequence[int]) -> list[tuple[str, Mapping[str, Any]]]:
    """Every item of ``folder`` alone (``item-NAME``) and, for each larger batch, that many of them together, by name.

    Items of unequal shape do not go together, and neither do those whose answers would be larger than ``LARGEST``.
    """
    import numpy as np

    items = read_cases(folder).cases
    size = sum(4 * prod(dim for dim in tensor.shape if isinstance(dim, int)) for tensor in signature.outputs)
    if not signature.batched:
        return [(item.name, item.inputs) for item in items]
    found: list[tuple[str, Mapping[str, Any]]] = [
        (f"{ITEM}{item.name}", {name: value[None] for name, value in item.inputs.items()}) for item in items
    ]
    alike = all(
        {name: value.shape for name, value in item.inputs.items()}
        == {name: value.shape for name, value in items[0].inputs.items()}
        for item in items
    )
    for batch in sorted({batch for batch in batches if 1 < batch <= LARGEST // size}) if alike else ():
        rows = [items[row % len(items)] for row in range(batch)]
        found.append((f"batch{batch}", {name: np.stack([row.inputs[name] for row in rows]) for name in rows[0].inputs}))
    return found


def as_item(case: Case) -> Case:
    """A batch of one as the item that it is, so that a live check asks for each, and makes batches of its own."""
    inputs, outputs = ({name: value[0] for name, value in side.items()} for side in (case.inputs, case.outputs))
    return Case(case.name, inputs, outputs, item=True)
