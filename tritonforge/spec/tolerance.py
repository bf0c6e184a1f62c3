"""How far an answer may be from its reference, as the spec says it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tritonforge.spec.strict import Strict


class Tolerance(Strict):
    """How far an output may be from its reference: every figure that is given must hold."""

    abs: Annotated[float, Field(ge=0)] | None = None
    """Largest absolute difference (combined with `rel` as numpy's allclose does)."""
    rel: Annotated[float, Field(ge=0)] | None = None
    """Largest relative difference."""
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine similarity of the flattened outputs."""
    top1: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest share of rows whose largest value stands at the same place (top-1 agreement of a classifier)."""
