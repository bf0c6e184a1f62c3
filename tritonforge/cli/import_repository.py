"""``tritonforge import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, say, table

if TYPE_CHECKING:
    from tritonforge.actions.import_models import ImportedModel


@click.command("import")
@click.argument("repository", metavar="REPO", type=click.Path(path_type=Path))
@click.option("--into", default=".", type=click.Path(path_type=Path, file_okay=False), help="Where the spec goes.")
@click.option("--name", help="The name in the spec.  [default: the repository's folder]")
@click.option("--triton", metavar="YY.MM", help="The Triton that serves it.  [default: one that knows its configs]")
@click.option("--copy", is_flag=True, help="Copy large files too, where blocks cannot be shared; else they are linked.")
@click.option("--follow-links", is_flag=True, help="Take what links out of the repository lead to.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken; write nothing.")
@json_option
def import_(
    repository: Path,
    into: Path,
    name: str | None,
    triton: str | None,
    copy: bool,
    follow_links: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Turn a Triton repository into forge.yaml, forge.lock and models/, which build back to the same repository."""
    from tritonforge.actions.import_repository import ImportOptions, import_repository
    from tritonforge.actions.import_staging import SPEC
    from tritonforge.cli.live_line import live_line

    options = ImportOptions(name, triton, not copy, follow_links, dry_run)
    with live_line(as_json) as progress:
        outcome = import_repository(repository, into, options, progress)
    if as_json:
        emit_json(outcome.to_json())
        return
    table(
        f"{repository}: {len(outcome.models)} models" + (" would be taken" if dry_run else ""),
        ["model", "backend", "versions", "config", "files", "size"],
        [_row(model) for model in outcome.models],
    )
    for item in outcome.left:
        say(f"left: {item.path if item.path.isprintable() else repr(item.path)}: {item.why}")
    for warning in outcome.warnings:
        say(f"warning: {warning}")
    if dry_run:
        click.echo(f"nothing was written; {outcome.folder / SPEC} would be")
        return
    there = "" if into.resolve() == Path.cwd() else f" --spec {outcome.folder / SPEC}"
    click.echo(f"wrote {outcome.folder / SPEC}; next: tritonforge build{there}")


def _row(model: ImportedModel) -> list[str]:
    versions = ", ".join(f"{number}" if number in model.served else f"({number})" for number in model.versions)
    config = "given" if model.config else "left to the server"
    if model.variants:
        config += f", and {', '.join(model.variants)}"
    return [model.name, model.backend, versions, config, str(model.files), _size(model.size)]


def _size(count: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} B"
