"""Golden cases as the requests that prove a model: batches of one, of an odd number, and of the largest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet, takes

if TYPE_CHECKING:
    import numpy as np


def expand(cases: CaseSet, signature: Signature, largest: int) -> Iterator[Case]:
    """Cases of one item as batches of one, of an odd number, and of the largest; others as they are.

    A case of another shape than the model takes is left out: a variant may fix sizes that its source leaves open. So
    are sequences, whose requests go one after the other (``actions/sequences.py``).
    """
    import numpy as np

    fitting = [case for case in cases.cases if not case.sequence and takes(signature, case)]
    generated = [case for case in fitting if not case.item]
    if not signature.batched:
        yield from generated
    elif largest > 0:
        yield from _generated_batches(generated, largest)
    items = [case for case in fitting if case.item]
    if not items:
        return
    if not signature.batched:
        yield from items
        return

    def batch(name: str, chosen: list[Case]) -> Case:
        def stack(tensors: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
            return np.stack(tensors)

        first = chosen[0]
        inputs = {key: stack([case.inputs[key] for case in chosen]) for key in first.inputs}
        outputs = {key: stack([case.outputs[key] for case in chosen]) for key in first.outputs}
        return Case(name, inputs, outputs)

    for case in items:
        yield batch(case.name, [case])
    for size in sorted({min(3, largest), largest} - {1}):
        alike = [case for case in items if _outline(case) == _outline(items[0])]
        yield batch(f"batch of {size}", [alike[index % len(alike)] for index in range(size)])


def _generated_batches(generated: list[Case], largest: int) -> Iterator[Case]:
    """The cases that fit, and one of exactly the largest batch for every shape: rows of a batch are independent."""
    import numpy as np

    by_shape: dict[str, list[Case]] = {}
    for case in generated:
        by_shape.setdefault(str([array.shape[1:] for array in case.inputs.values()]), []).append(case)
    for alike in by_shape.values():
        sizes = {next(iter(case.inputs.values())).shape[0]: case for case in alike if case.inputs}
        yield from (case for size, case in sizes.items() if size <= largest)
        if largest not in sizes and sizes:
            source = sizes[max(sizes)]
            rows = np.arange(largest) % max(sizes)
            inputs = {name: array[rows] for name, array in source.inputs.items()}
            outputs = {name: array[rows] for name, array in source.outputs.items()}
            yield Case(f"{source.name} as a batch of {largest}", inputs, outputs)


def _outline(case: Case) -> Any:
    return [(name, array.shape) for name, array in (*sorted(case.inputs.items()), *sorted(case.outputs.items()))]
