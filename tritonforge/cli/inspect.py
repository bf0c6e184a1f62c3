"""``tritonforge inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, say, table
from tritonforge.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from tritonforge.actions.inspect import Inspection
    from tritonforge.sources.look.facts import ModelFacts

_SHOWN = 20


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=SIZE",
    help="The size of a dynamic axis; may be repeated.  [default: 1]",
)
@json_option
def inspect(model: Path, axes: tuple[str, ...], as_json: bool) -> None:
    """Tell what MODEL is, what it costs, and which backends can serve it.

    Weights are not read, no framework is loaded, and no code of the model is run.
    """
    from tritonforge.actions.inspect import inspect_model

    found = inspect_model(model, _sizes(axes))
    if as_json:
        emit_json(found.to_json())
    else:
        _show(found)
    for problem in found.facts.problems:
        say(click.style("error: ", fg="red", bold=True) + problem)
    if found.facts.problems:
        raise SystemExit(int(ExitCode.BAD))


def _sizes(axes: tuple[str, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for text in axes:
        name, equals, size = text.rpartition("=")
        if not equals or not name or not (size.isascii() and size.isdigit()) or not 0 < int(size[:12]) <= 2**31:
            raise UsageError(f"'{text}' names no size of an axis", expected="--axis NAME=SIZE, such as --axis batch=8")
        if name in sizes:
            raise UsageError(f"the axis '{name}' has two sizes", found=f"{sizes[name]} and {size}")
        sizes[name] = int(size)
    return sizes


def _show(found: Inspection) -> None:
    facts = found.facts
    table(f"{facts.path}: {facts.format}", ["fact", "value"], _properties(facts))
    tensors = [("input", item) for item in facts.inputs or ()] + [("output", item) for item in facts.outputs or ()]
    if tensors:
        rows = [
            [kind, item.name, item.datatype, "–" if item.shape is None else "×".join(map(str, item.shape)) or "scalar"]
            for kind, item in tensors
        ]
        table(None, ["", "name", "type", "shape"], rows)
    if facts.operators:
        table(None, ["operator", "nodes", "FLOPs"], _operators(facts))
    table(None, ["backend", "serves it", "why"], [[item.name, item.answer, item.reason] for item in found.backends])
    table(None, ["on", "take", "because"], [[item.target, item.backend or "–", item.reason] for item in found.advice])
    for note in facts.notes:
        click.echo(f"note: {note}")


def _properties(facts: ModelFacts) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["on disk", f"{binary(facts.size)} in {len(facts.files)} file{'s' * (len(facts.files) != 1)}"]
    ]
    if facts.parameters is not None:
        types = ", ".join(f"{name} {decimal(count)}" for name, count in facts.weight_types.items())
        rows.append(["parameters", f"{facts.parameters:,}" + (f" (stored: {types})" if types else "")])
    if facts.memory is not None:
        text = f"{binary(facts.memory.weights)} weights"
        if facts.memory.activations is not None:
            text += f" + {binary(facts.memory.activations)} activations at the peak"
        if facts.memory.unsized:
            text += f" and {facts.memory.unsized} values of unknown size"
        rows.append(["memory, estimated", text])
    if facts.sizes:
        rows.append(["dynamic axes", ", ".join(f"{name} = {size}" for name, size in facts.sizes.items())])
    if facts.flops is not None:
        text = f"{decimal(facts.flops.total)} FLOPs ({facts.flops.total:,})"
        if facts.flops.unknown:
            text += "; unknown: " + ", ".join(f"{count} {name}" for name, count in facts.flops.unknown.items())
        rows.append(["work of one inference", text])
    rows.extend([[name.replace("_", " "), value] for name, value in facts.versions.items() if value != ""])
    if facts.functions:
        rows.append(["functions", f"{len(facts.functions)} with {sum(facts.functions.values())} nodes"])
    if facts.custom:
        rows.append(["custom operators", ", ".join(facts.custom)])
    if facts.globals and facts.format == "torch-pickle":
        rows.append(["a pickle of", ", ".join(facts.globals[:_SHOWN])])
    return rows


def _operators(facts: ModelFacts) -> list[list[Any]]:
    work = facts.flops.by_operator if facts.flops is not None else {}
    rows = [
        [name, count, decimal(work[name]) if work.get(name) else ""]
        for name, count in list(facts.operators.items())[:_SHOWN]
    ]
    rest = list(facts.operators.values())[_SHOWN:]
    if rest:
        rows.append([f"{len(rest)} more", sum(rest), ""])
    return rows


def binary(size: int) -> str:
    """Bytes with a binary prefix."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def decimal(count: int) -> str:
    """A count with a decimal prefix."""
    value = float(count)
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 1000 or unit == "P":
            return str(count) if unit == "" else f"{value:.2f} {unit}"
        value /= 1000
    raise AssertionError
