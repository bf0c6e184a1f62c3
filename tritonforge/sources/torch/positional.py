"""A module whose ``forward`` takes the signature's inputs by position and returns a tuple of its outputs."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.signature import Signature
from tritonforge.sources.torch.arguments import bind
from tritonforge.sources.torch.outputs import named

if TYPE_CHECKING:
    import torch


def as_positional(module: torch.nn.Module, recipe: Mapping[str, Any], signature: Signature) -> torch.nn.Module:
    """For ``torch.export``, ``torch.onnx.export`` and ``torch.jit.trace``, which name inputs after arguments.

    Raises:
        CheckFailed: the inputs do not fit ``forward``; or, where it is called, its outputs are not the signature's.
    """
    import torch

    inputs = [tensor.name for tensor in signature.inputs]
    outputs = [tensor.name for tensor in signature.outputs]
    arguments = identifiers(inputs)
    call = bind(module, inputs, recipe.get("sample") or {})

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

    def answer(self: Any, *values: Any) -> tuple[Any, ...]:
        found = call.apply(self.module, dict(zip(inputs, values, strict=True)))
        return tuple(named(found, outputs).values())

    # Exporters read the names from the code object: a signature in an attribute is not enough for all of them.
    space: dict[str, Any] = {"answer": answer}
    given = ", ".join(["self", *arguments])
    exec(f"def forward({given}):\n    return answer({given})\n", space)  # noqa: S102 - identifiers only
    Positional.forward = space["forward"]
    made = Positional()
    made.training = False
    return made


def identifiers(names: Sequence[str]) -> list[str]:
    """The names as Python's identifiers, each another one."""
    made: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not word or word[0].isdigit() or keyword.iskeyword(word) or word in ("self", "answer"):
            word = f"input_{word}"
        while word in made:
            word += "_"
        made.append(word)
    return made
