"""Find out a model's outputs by running it: their types, their dynamic axes, and whether axis 0 is a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, ForgeError, Place

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]

PROBE_BATCHES: Final = (2, 3)
_CLEARLY: Final = 0.2


@dataclass(frozen=True, slots=True)
class Probed:
    """The whole signature, and what a reader should know about how it was found."""

    signature: Signature
    notes: tuple[str, ...] = ()


def probe(
    run: Run,
    inputs: Sequence[Tensor],
    *,
    batched: bool | None,
    axes: Mapping[str, Sequence[int]],
    ranges: Mapping[str, Mapping[str, Any]],
    names: Sequence[str] = (),
    seed: int = 0,
) -> Probed:
    """The signature of a model of which only the inputs are known.

    ``inputs`` have whole shapes, with the batch axis first unless ``batched`` is False. ``axes`` are smallest and
    largest sizes of dynamic axes, ``names`` the outputs in the model's order (its own when empty). Every dynamic axis
    is moved alone, and each output axis that moves with it is dynamic: it has the input axis's name where the sizes
    agree, else a name of its own.

    Raises:
        CheckFailed: the model cannot be run on generated inputs, answers with a type that Triton does not have, or
            ``batched`` is True and an output does not follow the batch.
    """
    asked = Signature(tuple(inputs), (), batched is not False)
    bounds = {name: (int(sizes[0]), int(sizes[1])) for name, sizes in axes.items()}
    base = {
        name: _middle(name, bounds, place) for place, name in enumerate(sorted(axis_sizes(asked, {}, largest=False)))
    }

    def answers(batch: int, sizes: Mapping[str, int]) -> dict[str, Any]:
        found = dict(run(make_inputs(asked, batch=batch, sizes=sizes, seed=seed, ranges=ranges)))
        if names and len(names) != len(found):
            raise CheckFailed(
                "the model has another number of outputs than the spec names",
                expected=", ".join(names),
                found=f"{len(found)}: {', '.join(found)}",
            )
        return dict(zip(names, found.values(), strict=True)) if names else found

    batch = PROBE_BATCHES[0] if asked.batched else 1
    first = answers(batch, base)
    shapes: dict[str, list[Dim]] = {name: [int(size) for size in value.shape] for name, value in first.items()}
    for axis in base:
        moved = answers(batch, {**base, axis: _other(axis, base[axis], bounds)})
        for name, value in moved.items():
            _mark(shapes[name], first[name].shape, value.shape, axis, name, base[axis])
    notes: list[str] = []
    is_batch = asked.batched
    if asked.batched:
        moved = answers(PROBE_BATCHES[1], base)
        still = [
            name
            for name, value in moved.items()
            if not value.shape or first[name].shape[0] != batch or value.shape[0] != PROBE_BATCHES[1]
        ]
        if still and batched:
            raise CheckFailed(
                "`batched: true`, but an output does not follow the batch",
                found=", ".join(f"{name} {list(moved[name].shape)}" for name in still),
                expected=f"axis 0 of every output to be {PROBE_BATCHES[1]}, as that of the inputs",
                hint="say `batched: false`, and write the inputs' whole shapes",
            )
        if still:
            is_batch = False
            notes.append(f"axis 0 is no batch: {', '.join(still)} did not follow it")
        for name, value in moved.items():
            _mark(shapes[name], first[name].shape, value.shape, "batch", name, batch)
        if is_batch and batched is None:
            feeds = make_inputs(asked, batch=PROBE_BATCHES[1], sizes=base, seed=seed, ranges=ranges)
            mixed = rows_mixed(run, feeds, dict(run(feeds)))
            if mixed:
                is_batch = False
                notes.append(f"axis 0 is no batch: rows of {', '.join(mixed)} depend on each other")
    outputs = tuple(Tensor(name, _datatype(name, value), tuple(shapes[name])) for name, value in first.items())
    return Probed(Signature(tuple(inputs), outputs, is_batch), tuple(notes))


def find_batch(
    run: Run, signature: Signature, *, axes: Mapping[str, Sequence[int]], ranges: Mapping[str, Mapping[str, Any]]
) -> Probed:
    """Whether axis 0 of a signature that is dynamic everywhere is the batch: every output follows it, row by row."""
    bounds = {name: (int(sizes[0]), int(sizes[1])) for name, sizes in axes.items()}
    sizes = axis_sizes(signature, bounds, largest=False)
    feeds: dict[str, Any] = {}
    outputs: Mapping[str, Any] = {}
    for batch in PROBE_BATCHES:
        feeds = make_inputs(signature, batch=batch, sizes=sizes, seed=0, ranges=ranges)
        try:
            outputs = run(feeds)
        except ForgeError as error:
            one_symbol = len({tensor.shape[0] for tensor in (*signature.inputs, *signature.outputs)}) == 1
            note = f"could not be run at batch {batch} to see whether axis 0 is the batch: {error.found}"
            return Probed(replace(signature, batched=one_symbol), (note,))
        wrong = [name for name, value in outputs.items() if not getattr(value, "shape", ()) or value.shape[0] != batch]
        if wrong:
            note = f"axis 0 is no batch: {', '.join(wrong)} did not follow it"
            return Probed(replace(signature, batched=False), (note,))
    mixed = rows_mixed(run, feeds, outputs)
    if mixed:
        note = f"axis 0 is no batch: rows of {', '.join(mixed)} depend on each other"
        return Probed(replace(signature, batched=False), (note,))
    return Probed(signature)


def rows_mixed(run: Run, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[str]:
    """The outputs whose rows are clearly others when each item runs alone: the server must not merge requests then.

    Quantisation at run time takes its scale from the whole batch, so that small differences mean nothing.
    """
    import numpy as np

    mixed = set()
    for row in range(len(next(iter(feeds.values()), ()))):
        try:
            alone = run({name: value[row : row + 1] for name, value in feeds.items()})
        except ForgeError:
            return []  # it runs in batches only
        for name, whole in outputs.items():
            together = whole[row : row + 1]
            if alone[name].shape != together.shape:
                mixed.add(name)
            elif together.dtype.kind == "f":
                a, b = (np.nan_to_num(value.astype(np.float64)) for value in (alone[name], together))
                if np.linalg.norm(a - b) > _CLEARLY * max(np.linalg.norm(a), np.linalg.norm(b)):
                    mixed.add(name)
            elif together.size and np.mean(alone[name] != together) > 0.5:
                mixed.add(name)
    return sorted(mixed)


def _middle(name: str, bounds: Mapping[str, tuple[int, int]], place: int) -> int:
    """A size within the bounds, another one for every axis where there is room, so that axes can be told apart."""
    low, high = bounds.get(name, (1, 16))
    return min(high, max(low, low + 3 + place))


def _other(name: str, size: int, bounds: Mapping[str, tuple[int, int]]) -> int:
    """The end of the bounds that is further away: an axis that counts frames or windows moves only with many steps."""
    low, high = bounds.get(name, (1, 16))
    return high if high - size >= size - low else low


def _mark(shape: list[Dim], before: Sequence[int], after: Sequence[int], axis: str, output: str, size: int) -> None:
    """Make dynamic what moved when ``axis`` alone was moved from ``size``."""
    if len(before) != len(after):
        raise CheckFailed(
            f"the output '{output}' changes its rank with the axis '{axis}'",
            found=f"{list(before)} and {list(after)}",
            expected="one rank for all requests",
        )
    for place, (was, now) in enumerate(zip(before, after, strict=True)):
        if was != now:
            known = shape[place]
            shape[place] = axis if isinstance(known, int) and was == size else f"?{output}.{place}"


def _datatype(name: str, value: Any) -> str:
    found = next((item.name for item in BY_NAME.values() if item.numpy == str(value.dtype)), None)
    if found is None:
        raise CheckFailed(
            f"the output '{name}' has a type that Triton does not have",
            place=Place(),
            found=str(value.dtype),
            expected=", ".join(BY_NAME),
        )
    return found


def declared(tensors: Mapping[str, Mapping[str, Any]], *, batched: bool) -> tuple[Tensor, ...]:
    """Tensors as a step's configuration has them (``{name: {type, optional, ragged}}``), with whole shapes."""
    from tritonforge.artifact.signature import parse_type

    made = []
    for name, stated in tensors.items():
        datatype, dims = parse_type(stated["type"])
        shape: tuple[Dim, ...] = tuple(
            f"?{name}.{dim[1:]}" if isinstance(dim, str) and dim[0] == "?" else dim for dim in dims
        )
        made.append(
            Tensor(
                name,
                datatype,
                ("batch", *shape) if batched else shape,
                bool(stated.get("optional", False)),
                bool(stated.get("ragged", False)),
            )
        )
    return tuple(made)
