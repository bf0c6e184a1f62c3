"""``torch.export`` of a module whose dynamic axes a signature names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tritonforge.artifact.generate import LARGEST, SMALLEST, axes_of
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed


def dynamic_shapes(signature: Signature, *, bounded: bool = True) -> tuple[dict[int, Any], ...]:
    """Which axes of each input are dynamic; axes of one name have one size, as in the signature.

    Where the graph is not to check bounds (``bounded`` false: ONNX has none), a module may have its own, such as the
    number of its positions; a size that it fixes is still an error.
    """
    import torch

    axes: dict[str, Any] = {}
    shapes = []
    for tensor in signature.inputs:
        own = {}
        for axis, dim in enumerate(tensor.shape):
            if isinstance(dim, str) and not bounded:
                own[axis] = torch.export.Dim.DYNAMIC
            elif isinstance(dim, str) and axes_of(dim) != [dim]:
                own[axis] = torch.export.Dim.AUTO  # the sum of others, which torch.export finds out
            elif isinstance(dim, str):
                if dim not in axes:
                    axes[dim] = torch.export.Dim(f"a{len(axes)}_{re.sub(r'[^0-9A-Za-z_]', '_', dim)}", min=1)
                own[axis] = axes[dim]
        shapes.append(own)
    return tuple(shapes)


def require_whole_range(program: Any, signature: Signature, bounds: Mapping[str, Sequence[int]]) -> None:
    """Hold the sizes that an exported program stands for to those that are asked for.

    A module that computes otherwise at some sizes is exported as it computes at one of them, and the range of the
    symbol says so. A smallest size of 1 is left to the comparison: ``torch.export`` takes 0 and 1 apart by habit.

    Raises:
        CheckFailed: a dynamic axis is fixed, or has a narrower range than ``bounds`` (1 to 16 where they say nothing).
    """
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    inputs = values[len(values) - len(signature.inputs) :]
    for tensor, value in zip(signature.inputs, inputs, strict=True):
        for axis, dim in enumerate(tensor.shape):
            if not isinstance(dim, str) or axes_of(dim) != [dim] or not hasattr(value, "shape"):
                continue
            size: Any = value.shape[axis]
            low, high = bounds.get(dim, (SMALLEST, LARGEST))
            limits = None if isinstance(size, int) else program.range_constraints.get(size.node.expr)
            if limits is None:
                continue
            upper = int(limits.upper) if limits.upper.is_Integer else None
            lower = int(limits.lower) if limits.lower.is_Integer else 0
            if (upper is not None and upper < high) or lower > max(low, 2):
                raise CheckFailed(
                    f"the module computes otherwise at other sizes of '{dim}'",
                    found=f"one graph stands for {lower} to {'any' if upper is None else upper}",
                    expected=f"{low} to {high}",
                    hint=f"write that branch with torch.where, or say which sizes are asked: "
                    f"`golden: {{axes: {{{dim}: [{max(low, lower)}, {upper or high}]}}}}`",
                )
