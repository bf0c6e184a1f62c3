"""What ``forward`` returns, as named tensors in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tritonforge.errors import CheckFailed


def flatten(answer: Any) -> list[tuple[str, Any]]:
    """Names and tensors: keys of dicts and fields of dataclasses, else ``output``, or ``output_0``, ``output_1``, …

    What is None is left out. Nested values have the names above theirs in front: ``output_0_1``.

    Raises:
        CheckFailed: something in it is no tensor, or there is no tensor at all.
    """
    import torch

    if isinstance(answer, torch.Tensor):
        return [("output", answer)]
    found: list[tuple[str, Any]] = []
    _into(found, "", answer)
    if not found:
        raise CheckFailed("forward returns no tensor", found=type(answer).__name__)
    return found


def _into(found: list[tuple[str, Any]], name: str, value: Any) -> None:
    import torch

    if value is None:
        return
    if isinstance(value, torch.Tensor):
        found.append((name or "output", value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _into(found, f"{name}_{key}" if name else str(key), item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            _into(found, f"{name}_{field.name}" if name else field.name, item)
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        for place, item in enumerate(value):
            own = fields[place] if fields else f"{name or 'output'}_{place}"
            _into(found, f"{name}_{own}" if fields and name else own, item)
    else:
        raise CheckFailed(
            f"the output '{name or 'output'}' of forward is no tensor",
            expected="a tensor, or a tuple, dict or dataclass of tensors",
            found=type(value).__name__,
            hint="wrap the module in one whose forward returns tensors only, and name that as `torch.module`",
        )


def named(answer: Any, names: Sequence[str]) -> dict[str, Any]:
    """The tensors by the names that the spec or the signature gives them: by key where all are keys, else by order.

    Raises:
        CheckFailed: another number of outputs, or names that are keys of other outputs.
    """
    found = flatten(answer)
    own = [name for name, _ in found]
    if not names:
        return dict(found)
    if set(names) <= set(own):
        by_key = dict(found)
        return {name: by_key[name] for name in names}
    if len(names) != len(own):
        raise CheckFailed(
            "forward returns another number of outputs than the spec names",
            expected=", ".join(names),
            found=f"{len(own)}: {', '.join(own)}",
        )
    swapped = [name for place, name in enumerate(names) if name in own and own[place] != name]
    if swapped:
        raise CheckFailed(
            f"the spec's outputs are in another order than forward's, and '{swapped[0]}' is one of them",
            expected=", ".join(own),
            found=", ".join(names),
        )
    return {name: value for name, (_, value) in zip(names, found, strict=True)}
