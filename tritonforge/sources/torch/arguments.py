"""The arguments that ``forward`` takes, and which of them each input goes to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tritonforge.errors import CheckFailed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of ``forward``; ``position`` is None for one that goes by its name alone."""

    name: str
    required: bool
    position: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """How ``forward`` is called: names of inputs by position, then by keyword; ``fixed`` stands among them."""

    positional: tuple[str | None, ...]
    keywords: Mapping[str, str]
    fixed: Mapping[str, Any]
    fixed_places: Mapping[int, str]

    def apply(self, module: Any, values: Mapping[str, Any]) -> Any:
        """Call ``module`` with the values of its inputs."""
        arguments = [
            self.fixed[self.fixed_places[place]] if name is None else values[name]
            for place, name in enumerate(self.positional)
        ]
        fixed = {name: value for name, value in self.fixed.items() if name not in self.fixed_places.values()}
        return module(*arguments, **{key: values[name] for key, name in self.keywords.items()}, **fixed)


def forward_arguments(module: torch.nn.Module) -> list[Argument] | None:
    """The arguments of ``forward``; None where it takes any (``*args``)."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        forward: Any = module.forward
        schema = forward.schema
        stated = [item for item in schema.arguments if item.name != "self"]
        return [
            Argument(item.name, not item.has_default_value(), None if item.kwarg_only else place)
            for place, item in enumerate(stated)
        ]
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(item.kind is item.VAR_POSITIONAL for item in parameters):
        return None
    return [
        Argument(item.name, item.default is item.empty, None if item.kind is item.KEYWORD_ONLY else place)
        for place, item in enumerate(parameters)
        if item.kind is not item.VAR_KEYWORD
    ]


def bind(module: torch.nn.Module, names: Sequence[str], sample: Mapping[str, Any]) -> Call:
    """By the arguments' names where every input has one, else by order.

    Raises:
        CheckFailed: some inputs have the names of arguments and others not, there are more inputs than arguments, a
            required argument gets nothing, or ``sample`` names no argument.
    """
    known = forward_arguments(module)
    if known is None:
        return Call(tuple(names), {}, dict(sample), {})
    by_name = {argument.name: argument for argument in known}
    what = described(known)
    for name in sample:
        if name not in by_name:
            raise CheckFailed(f"`torch.sample` has '{name}', which forward does not take", found=what)
    free = [argument for argument in known if argument.name not in sample]
    fitting = [name for name in names if any(argument.name == name for argument in free)]
    if len(fitting) == len(names):
        given = {name: name for name in names}
    elif fitting:
        other = [name for name in names if name not in fitting]
        raise CheckFailed(
            "some inputs are arguments of forward and others are not",
            expected=f"forward({what})",
            found=f"{', '.join(other)} beside {', '.join(fitting)}",
            hint="give all inputs the names of forward's arguments, or none of them: they then go by order",
        )
    elif len(names) > len(free):
        raise CheckFailed(
            "the spec states more inputs than forward takes",
            expected=f"forward({what})",
            found=", ".join(names),
        )
    else:
        given = {argument.name: name for argument, name in zip(free, names, strict=False)}
    missing = [item.name for item in free if item.required and item.name not in given]
    if missing:
        raise CheckFailed(
            f"forward needs '{missing[0]}', which is no input",
            expected=f"forward({what})",
            found=", ".join(names) or "no inputs",
            hint="state it under `inputs`, or fix its value under `torch.sample`",
        )
    positional: list[str | None] = []
    places: dict[int, str] = {}
    for argument in known:
        if argument.position is None or (argument.name not in given and argument.name not in sample):
            break
        if argument.name in sample:
            places[len(positional)] = argument.name
        positional.append(given.get(argument.name))
    taken = {argument.name for argument in known[: len(positional)]}
    keywords = {key: name for key, name in given.items() if key not in taken}
    return Call(tuple(positional), keywords, dict(sample), places)


def described(arguments: Sequence[Argument] | None) -> str:
    """Arguments in one line; optional ones with ``=``."""
    if arguments is None:
        return "*args"
    return ", ".join(item.name if item.required else f"{item.name}=…" for item in arguments)
