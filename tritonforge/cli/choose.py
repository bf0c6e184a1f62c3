"""``tritonforge choose``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonforge.cli.options import json_option, platform_option, server_options, spec_options
from tritonforge.cli.output import emit_json, say, table

if TYPE_CHECKING:
    from tritonforge.actions.choose import Candidate, Chosen


@click.command()
@click.argument("names", nargs=-1)
@spec_options
@platform_option
@server_options
@click.option("--objective", type=click.Choice(["latency", "throughput"]), default="latency", show_default=True)
@click.option("--concurrency", type=click.IntRange(min=1), default=1, show_default=True, help="Requests in flight.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=3), default=6, show_default=True, help="Turns of every variant.")
@click.option("--interval-ms", type=click.IntRange(min=50), default=300, show_default=True, help="One window.")
@click.option("--axis", "axes", multiple=True, metavar="NAME=SIZE", help="Size of a dynamic axis in generated load.")
@click.option("--dry-run", is_flag=True, help="Measure, and leave forge.lock as it is.")
@json_option
def choose(
    names: tuple[str, ...],
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    server: str | None,
    tritonserver: Path | None,
    container: str | None,
    objective: Any,
    concurrency: int,
    batch_size: int,
    rounds: int,
    interval_ms: int,
    axes: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure the variants of the models NAMES (all that have some), and write the choice to forge.lock.

    Only what equals its source takes part. Variants are measured in turns; where the fastest cannot be told from
    others, the first of them in the spec is taken. `tritonforge build` then serves the choice.
    """
    from tritonforge.actions.choose import ChooseOptions
    from tritonforge.actions.choose import choose as run_choose
    from tritonforge.actions.live import ServerChoice
    from tritonforge.actions.workspace import open_workspace

    options = ChooseOptions(objective, concurrency, batch_size, rounds, interval_ms, _axes(axes), dry_run)
    chosen = run_choose(
        open_workspace(spec, overlays),
        platform_name=platform,
        names=names,
        choice=ServerChoice(server, tritonserver, container),
        options=options,
        progress=(lambda text: None) if as_json or not sys.stderr.isatty() else say,
    )
    if as_json:
        emit_json({"choices": [item.to_json() for item in chosen]})
        return
    for item in chosen:
        _show(item)


def _axes(texts: tuple[str, ...]) -> dict[str, int]:
    axes = {}
    for text in texts:
        name, _, size = text.partition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise click.BadParameter(f"'{text}' is not NAME=SIZE", param_hint="--axis")
        axes[name] = int(size)
    return axes


def _show(item: Chosen) -> None:
    rows = [_row(item, candidate) for candidate in item.candidates]
    what = f"{item.model} on {item.platform}: {item.figures['server']}, {item.figures['processor']}"
    table(what, ["variant", "backend", "p50 ms", "items/s", "to the fastest", "max abs", "cosine", ""], rows)
    others = [name for name in (item.ranking.fastest, *item.ranking.level_with) if name != item.ranking.best]
    level = f" (level with {', '.join(others)})" if others else ""
    where = "written to forge.lock" if item.written else "forge.lock is as it was"
    click.echo(f"{item.model}: '{item.ranking.best}' by {item.figures['objective']}{level}; {where}")
    if item.written and item.before != item.ranking.best:
        say("run `tritonforge build` to serve it")


def _row(item: Chosen, candidate: Candidate) -> list[Any]:
    if candidate.excluded is not None:
        return [candidate.label, candidate.backend, "–", "–", "–", "–", "–", f"excluded: {candidate.excluded}"]
    figures = candidate.figures()
    ratio = item.ranking.ratios.get(candidate.label)
    return [
        candidate.label,
        candidate.backend,
        f"{figures['p50_ms']:.3f}",
        f"{figures['throughput']:.1f}",
        "1" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} … {ratio.high:.2f})",
        "–" if candidate.max_abs is None else f"{candidate.max_abs:.2g}",
        "–" if candidate.cosine is None else f"{candidate.cosine:.6f}",
        "chosen" if candidate.label == item.ranking.best else "",
    ]
