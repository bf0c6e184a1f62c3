"""Inputs that a conversion is made and checked with: other sizes on every dynamic axis, and other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.compare import compare
from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.runners.torch_tensors import flat, ordered, to_numpy

if TYPE_CHECKING:
    import numpy as np

_SEEDS: Final = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Sample:
    """One set of inputs; ``what`` says how it differs from the first: ``other values``, ``axis width at 4``."""

    what: str
    inputs: Mapping[str, np.ndarray[Any, Any]]


def samples(signature: Signature, metadata: Mapping[str, Any]) -> list[Sample]:
    """The first is what a conversion is made with: batch 2, and a size of its own for every dynamic axis.

    Then come other values at the same sizes, and each axis, the batch included, moved alone. Bounds and ranges are
    those that the source was imported with (``metadata["generation"]``).
    """
    own = metadata.get("generation") or {}
    bounds = {name: (int(sizes[0]), int(sizes[1])) for name, sizes in own.get("axes", {}).items()}
    ranges = own.get("ranges", {})
    names = sorted(axis_sizes(_inputs_of(signature), {}, largest=False))
    # Nothing is 1 where it need not be: a tracer takes 1 for a size that never changes.
    base = {name: _within(3 + place, bounds.get(name)) for place, name in enumerate(names)}
    batch = 2

    def made(what: str, batch: int, sizes: Mapping[str, int], seed: int) -> Sample:
        return Sample(what, make_inputs(signature, batch=batch, sizes=sizes, seed=seed, ranges=ranges))

    found = [made("the first inputs", batch, base, _SEEDS[0])]
    found += [made("other values", batch, base, seed) for seed in _SEEDS[1:]]
    for name in names:
        for size in _others(base[name], bounds.get(name)):
            found.append(made(f"axis {name} at {size}", batch, {**base, name: size}, _SEEDS[0]))
    if signature.batched:
        found += [made(f"batch {other}", other, base, _SEEDS[0]) for other in (1, 3)]
    return found


def difference(signature: Signature, found: Any, expected: Any) -> str | None:
    """How what a converted module returned differs from what its source returned; None where it does not."""
    answers, wanted = flat(found), flat(expected)
    if len(answers) != len(wanted):
        return f"{len(answers)} outputs instead of {len(wanted)}"
    for tensor, answer, reference in zip(signature.outputs, answers, wanted, strict=True):
        ours, theirs = to_numpy(answer), to_numpy(reference)
        type_ = BY_NAME[tensor.datatype].numpy or "float32"
        if str(ours.dtype) != type_:
            return f"'{tensor.name}' is {ours.dtype} instead of {type_}"
        result = compare(tensor.name, tensor.datatype, ours, theirs)
        if not result.ok:
            return f"'{tensor.name}': {result.reason}"
    return None


def positional(signature: Signature, sample: Sample) -> tuple[Any, ...]:
    """A sample as a module's positional arguments."""
    return tuple(ordered(signature, sample.inputs))


def _inputs_of(signature: Signature) -> Signature:
    return Signature(signature.inputs, (), signature.batched)


def _within(size: int, bounds: tuple[int, int] | None) -> int:
    low, high = bounds or (1, 16)
    return min(high, max(low, size))


def _others(size: int, bounds: tuple[int, int] | None) -> list[int]:
    """The smallest size that is allowed, and one above ``size`` where there is room."""
    return [other for other in dict.fromkeys((_within(1, bounds), _within(size + 2, bounds))) if other != size]
