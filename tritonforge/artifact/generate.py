"""Input tensors made from a signature: reproducible, and at the sizes that break things."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.signature import Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np

SMALLEST: Final = 1
LARGEST: Final = 16
_SUM: Final = re.compile(r"[A-Za-z_]\w*(\s*\+\s*\w+)+")
_WORDS: Final = ("tensor", "Grüße", "", "naïve", "42", "a longer piece of text", "日本", "x")


def axis_sizes(signature: Signature, bounds: Mapping[str, tuple[int, int]], *, largest: bool) -> dict[str, int]:
    """The size of every dynamic axis but the batch: its smallest or largest declared one (1 and 16 without one)."""
    sizes: dict[str, int] = {}
    for tensor in (*signature.inputs, *signature.outputs):
        for dim in tensor.shape[1:] if signature.batched else tensor.shape:
            if isinstance(dim, str):
                for axis in axes_of(dim):
                    low, high = bounds.get(axis, (SMALLEST, LARGEST))
                    sizes[axis] = high if largest else low
    return sizes


def axes_of(dim: str) -> list[str]:
    """The axes that a dynamic one follows: itself, or those of a sum such as `past_sequence + sequence`."""
    if _SUM.fullmatch(dim) is None:
        return [dim]
    return [part for part in map(str.strip, dim.split("+")) if not part.isdecimal()]


def size_of(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size of an axis, given those of all axes that no other one decides."""
    if isinstance(dim, int):
        return dim
    if dim in sizes or _SUM.fullmatch(dim) is None:
        return sizes[dim]
    return sum(int(part) if part.isdecimal() else sizes[part] for part in map(str.strip, dim.split("+")))


def concrete(tensor: Tensor, batched: bool, batch: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of ``tensor`` with all dynamic axes given."""
    shape: list[int] = []
    for axis, dim in enumerate(tensor.shape):
        if axis == 0 and batched:
            shape.append(batch)
        else:
            shape.append(size_of(dim, sizes))
    return tuple(shape)


def make_inputs(
    signature: Signature,
    *,
    batch: int,
    sizes: Mapping[str, int],
    seed: int,
    ranges: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """One value for every input; the same arguments give the same values.

    A range is ``{low, high}`` or ``{values}``; ``{mask: true}`` makes rows of ones that end in zeros.
    """
    made = {}
    for tensor in signature.inputs:
        shape = concrete(tensor, signature.batched, batch, sizes)
        text = f"{seed}:{tensor.name}:{shape}"
        made[tensor.name] = _values(
            tensor.datatype, shape, int(digest_bytes(text.encode())[:8], 16), (ranges or {}).get(tensor.name)
        )
    return made


def _values(datatype: str, shape: tuple[int, ...], seed: int, limits: Mapping[str, Any] | None) -> np.ndarray[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(seed)
    limits = limits or {}
    choices = limits.get("values")
    if datatype == "BYTES":
        words = [str(word).encode() for word in choices or _WORDS]
        array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = [words[index] for index in rng.integers(0, len(words), size=array.size)]
        return array
    dtype = np.dtype(BY_NAME[datatype].numpy or "float32")
    if limits.get("mask") and shape:
        # Padding stands behind what it fills up, and some row is always as long as its batch.
        lengths = rng.integers(1, shape[-1], size=shape[:-1], endpoint=True)
        lengths.reshape(-1)[:1] = shape[-1]
        return (np.arange(shape[-1]) < lengths[..., None]).astype(dtype)
    if choices:
        return rng.choice(np.array(choices), size=shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(dtype)
    low, high = limits.get("low"), limits.get("high")
    if dtype.kind in "iu":
        # Small non-negative integers are valid as tokens, indices and counts more often than any others.
        first = 0 if low is None else int(low)
        last = first + 9 if high is None else int(high)
        return rng.integers(first, last, size=shape, endpoint=True).astype(dtype)
    if low is not None or high is not None:
        lowest = -1.0 if low is None else float(low)
        return rng.uniform(lowest, lowest + 2.0 if high is None else float(high), size=shape).astype(dtype)
    return rng.standard_normal(size=shape).astype(dtype)
