"""``torch.export`` of a module whose dynamic axes a signature names."""

from __future__ import annotations

import re
from typing import Any

from tritonforge.artifact.generate import axes_of
from tritonforge.artifact.signature import Signature


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
