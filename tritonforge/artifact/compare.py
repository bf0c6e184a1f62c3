"""How far two tensors are apart, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

DEFAULT_TOLERANCE: Final[Mapping[str, Mapping[str, float]]] = {
    "FP64": {"abs": 1e-6, "rel": 1e-6},
    "FP32": {"abs": 1e-4, "rel": 1e-3},
    "FP16": {"abs": 1e-2, "rel": 1e-2},
    "BF16": {"abs": 5e-2, "rel": 5e-2},
}
"""By precision; integers, booleans and strings must be equal.

FP32 leaves room for another order of summation (kernels and fusions differ between machines); FP16 and BF16 are some
units in the last place (2^-11 and 2^-8).
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One output against its reference. ``ok`` says whether it is within the tolerance; ``reason`` says why not."""

    output: str
    ok: bool
    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    name: str,
    datatype: str,
    found: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    tolerance: Mapping[str, float] | None = None,
) -> Difference:
    """Compare an output with its reference.

    A changed shape, and a NaN or infinity that the reference does not have, are failures whatever the tolerance.
    ``agreement`` is the share of equal elements for exact types, and of equal arg-max rows (along the last axis) for
    floating ones of rank 2 and more.
    """
    import numpy as np

    if found.shape != expected.shape:
        return Difference(name, False, reason=f"shape {list(found.shape)} instead of {list(expected.shape)}")
    if datatype == "BYTES":
        left, right = _texts(found), _texts(expected)
        same = sum(a == b for a, b in zip(left, right, strict=True))
        wrong = next(((a, b) for a, b in zip(left, right, strict=True) if a != b), None)
        reason = None if wrong is None else f"{wrong[0][:80]!r} instead of {wrong[1][:80]!r}"
        return Difference(name, wrong is None, agreement=same / max(1, len(left)), reason=reason)
    if datatype not in DEFAULT_TOLERANCE:
        agreement = float(np.mean(found == expected)) if found.size else 1.0
        if agreement < 1 and tolerance:
            gap = float(np.max(np.abs(found.astype(np.float64) - expected.astype(np.float64))))
            ok = gap <= tolerance.get("abs", 0.0)
            return Difference(name, ok, max_abs=gap, agreement=agreement, reason=None if ok else f"differs by {gap:g}")
        ok = agreement == 1
        return Difference(
            name, ok, agreement=agreement, reason=None if ok else f"{1 - agreement:.2%} of the values differ"
        )
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return Difference(name, False, reason="NaN or infinity where the reference has none, or the other way round")
    a, b = a[finite], b[finite]
    if a.size == 0:
        return Difference(name, True, 0.0, 0.0, 1.0)
    limits = tolerance or DEFAULT_TOLERANCE[datatype]
    gap = np.abs(a - b)
    max_abs = float(gap.max())
    max_rel = float((gap / np.maximum(np.abs(b), 1e-12)).max())
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b / norms) if norms > 0 else (1.0 if max_abs == 0 else 0.0)
    top: float | None = None
    if expected.ndim >= 2 and expected.shape[-1] > 1 and finite.all():
        top = float(np.mean(found.argmax(axis=-1) == expected.argmax(axis=-1)))
    reasons = []
    if ("abs" in limits or "rel" in limits) and not np.all(
        gap <= limits.get("abs", 0.0) + limits.get("rel", 0.0) * np.abs(b)
    ):
        reasons.append(f"max abs {max_abs:.3g}, max rel {max_rel:.3g} exceed {_bounds(limits)}")
    if "cosine" in limits and cosine < limits["cosine"]:
        reasons.append(f"cosine {cosine:.6f} is below {limits['cosine']}")
    if "top1" in limits and top is None:
        reasons.append(f"there is no top-1 agreement of shape {list(expected.shape)}: state another tolerance")
    elif "top1" in limits and top is not None and top < limits["top1"]:
        reasons.append(f"top-1 agreement {top:.4f} is below {limits['top1']}")
    return Difference(name, not reasons, max_abs, max_rel, cosine, top, "; ".join(reasons) or None)


def _bounds(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in limits.items() if name in ("abs", "rel"))


def _texts(array: np.ndarray[Any, Any]) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
