"""Whether a conversion kept the signature: names, types, ranks, and every dynamic axis."""

from __future__ import annotations

from collections.abc import Sequence

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.errors import CheckFailed


def require_kept(source: Signature, found: Signature, *, what: str, hint: str | None = None) -> None:
    """Hold the signature that a converted file states against its source's.

    An axis that was fixed may have become dynamic; one that was dynamic must not be fixed. ``what`` names the file.

    Raises:
        CheckFailed: a tensor is gone, new, or has another place, type or rank; or a dynamic axis was lost.
    """
    problems = _problems("input", source.inputs, found.inputs) + _problems("output", source.outputs, found.outputs)
    if problems:
        raise CheckFailed(
            f"{what} has another signature than its source", found=problems[0], details=problems[1:4], hint=hint
        )


def _problems(kind: str, wanted: Sequence[Tensor], found: Sequence[Tensor]) -> list[str]:
    names, others = [tensor.name for tensor in wanted], [tensor.name for tensor in found]
    if names != others:
        return [f"{kind}s are {', '.join(others) or 'none'} instead of {', '.join(names) or 'none'}"]
    problems = []
    for tensor, other in zip(wanted, found, strict=True):
        if tensor.datatype != other.datatype:
            problems.append(f"{kind} '{tensor.name}' is {other.datatype} instead of {tensor.datatype}")
        if len(tensor.shape) != len(other.shape):
            problems.append(f"{kind} '{tensor.name}' has rank {len(other.shape)} instead of {len(tensor.shape)}")
            continue
        for axis, (dim, now) in enumerate(zip(tensor.shape, other.shape, strict=True)):
            if isinstance(dim, str) and isinstance(now, int):
                problems.append(f"{kind} '{tensor.name}' lost its dynamic axis {axis} ({dim}): it is fixed to {now}")
            elif isinstance(dim, int) and isinstance(now, int) and dim != now:
                problems.append(f"{kind} '{tensor.name}' has size {now} on axis {axis} instead of {dim}")
    return problems
