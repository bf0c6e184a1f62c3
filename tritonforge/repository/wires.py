"""The tensors of an ensemble: who produces each, who consumes it, and what its type and shape must therefore be.

Shapes are compared whole, with the batch axis, as Triton does (core ``ValidateTensorConsistency``): so a model that
batches and one that takes the batch as an ordinary dynamic axis may be neighbours. Stricter than Triton, which leaves
it to the first request: the batch axis never meets a fixed size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import Place, SpecError


class _Batch:
    def __repr__(self) -> str:
        return "batch"


BATCH: Final = _Batch()
"""The axis that ``max_batch_size`` puts in front."""

Axis = int | str | _Batch


def own_axes(tensor: str, dims: tuple[Dim, ...]) -> tuple[Axis, ...]:
    """Dims whose unnamed dynamic axes (``?…``) are told apart from those of other tensors."""
    return tuple(f"?{tensor}.{dim}" if isinstance(dim, str) and dim.startswith("?") else dim for dim in dims)


@dataclass(frozen=True, slots=True)
class Member:
    """A model or an ensemble as a step runs it.

    ``folder`` is its name in the repository, ``version`` the number that the same release serves. ``signature`` is what
    its clients see (``served_signature``), ``max_batch_size`` what its config says.
    """

    public_name: str
    folder: str
    version: int
    signature: Signature
    max_batch_size: int
    decoupled: bool = False

    def axes(self, tensor: Tensor) -> tuple[Axis, ...]:
        """The whole shape of a tensor as requests carry it; a scalar is ``[1]``."""
        batching = self.max_batch_size > 0 and self.signature.batched
        inner = own_axes(tensor.name, (tensor.shape[1:] if batching else tensor.shape) or (1,))
        return (BATCH, *inner) if batching else inner


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: a member's input or output, or the ensemble's own declaration (``step`` is -1)."""

    step: int
    owner: str
    tensor: str
    datatype: str
    axes: tuple[Axis, ...]
    optional: bool
    place: Place

    def __str__(self) -> str:
        axes = ",".join("-1" if isinstance(axis, str) and axis.startswith("?") else str(axis) for axis in self.axes)
        return f"{self.owner}.{self.tensor}: {self.datatype}[{axes}]"


@dataclass(slots=True)
class Wire:
    """A tensor of the ensemble with its ends."""

    name: str
    producer: End | None = None
    consumers: list[End] = field(default_factory=list)

    @property
    def ends(self) -> list[End]:
        """All ends, the producer first."""
        return [*([] if self.producer is None else [self.producer]), *self.consumers]


def agree(wire: Wire, ensemble: str) -> None:
    """Check that all ends of a wire have one type and compatible shapes.

    Raises:
        SpecError: two ends differ; both are named.
    """
    ends = wire.ends
    for number, second in enumerate(ends):
        for first in ends[:number]:
            why = _conflict(first, second)
            if why is not None:
                raise SpecError(
                    f"the ends of '{wire.name}' in ensemble '{ensemble}' do not fit: {why}",
                    place=second.place,
                    expected=str(first),
                    found=str(second),
                    hint=_hint(first, second),
                )


def _conflict(first: End, second: End) -> str | None:
    if first.datatype != second.datatype:
        return f"{first.datatype} and {second.datatype}"
    if len(first.axes) != len(second.axes):
        return f"{len(first.axes)} and {len(second.axes)} dimensions"
    for axis, (one, other) in enumerate(zip(first.axes, second.axes, strict=True)):
        if isinstance(one, int) and isinstance(other, int) and one != other:
            return f"axis {axis} is {one} and {other}"
        if (one is BATCH and isinstance(other, int)) or (other is BATCH and isinstance(one, int)):
            return f"axis {axis} is the batch on one end and {one if isinstance(one, int) else other} on the other"
    return None


def _hint(first: End, second: End) -> str | None:
    if first.datatype != second.datatype:
        return "put a step between them that converts, or change one of the models"
    if len(first.axes) != len(second.axes) and (BATCH in first.axes) != (BATCH in second.axes):
        return "one of them batches and the other does not: its shape lacks the batch axis"
    return None


_BATCH_KEY: Final = (-2, "batch")  # sorts before all others, and so is the root of what it is joined to


def _key(step: int, axis: str | _Batch) -> tuple[int, str]:
    return (step, axis) if isinstance(axis, str) else _BATCH_KEY


class Axes:
    """Names for the dynamic axes of an ensemble: axes that are one size in one request get one name."""

    def __init__(self, wires: Iterable[Wire]) -> None:
        self._parent: dict[tuple[int, str], tuple[int, str]] = {}
        for wire in wires:
            ends = wire.ends
            for end in ends[1:]:
                for one, other in zip(ends[0].axes, end.axes, strict=True):
                    if not isinstance(one, int) and not isinstance(other, int):
                        self._join(_key(ends[0].step, one), _key(end.step, other))
        self._names: dict[tuple[int, str], str] = {_BATCH_KEY: "batch"}

    def name(self, step: int, axis: str) -> str:
        """The name of a step's axis in the ensemble."""
        root = self._root((step, axis))
        if root not in self._names:
            group = [key for key in self._parent if self._root(key) == root] or [root]
            spoken = sorted(key[1] for key in group if not key[1].startswith("?"))
            wanted = spoken[0] if spoken else f"?{len(self._names)}"
            name, number = wanted, 2
            while name in self._names.values():
                name, number = f"{wanted}_{number}", number + 1
            self._names[root] = name
        return self._names[root]

    def _root(self, key: tuple[int, str]) -> tuple[int, str]:
        while self._parent.get(key, key) != key:
            key = self._parent[key]
        return key

    def _join(self, one: tuple[int, str], other: tuple[int, str]) -> None:
        for key in (one, other):
            self._parent.setdefault(key, key)
        roots = sorted((self._root(one), self._root(other)))
        self._parent[roots[1]] = roots[0]


def unified(wire: Wire, axes: Axes, batching: bool) -> tuple[Dim, ...]:
    """The shape that all ends of a wire allow: fixed where one of them is; with a batch axis first if ``batching``."""
    shape: list[Dim] = []
    for position in range(len(wire.ends[0].axes)):
        column = [(end.step, end.axes[position]) for end in wire.ends]
        fixed = next((axis for _, axis in column if isinstance(axis, int)), None)
        named = next(((step, axis) for step, axis in column if isinstance(axis, str)), None)
        if position == 0 and (batching or any(axis is BATCH for _, axis in column)):
            shape.append("batch")
        elif fixed is not None:
            shape.append(fixed)
        elif named is not None:
            shape.append(axes.name(*named))
    return tuple(shape)


def described(members: Mapping[str, Member], names: Iterable[str]) -> str:
    """Members with their largest batches, for messages."""
    return ", ".join(f"{name}: {members[name].max_batch_size}" for name in names)
