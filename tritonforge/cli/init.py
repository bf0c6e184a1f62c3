"""``tritonforge init``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--source", help="The model, relative to the folder.  [default: an .onnx file found there]")
@click.option("--name", help="The repository's name.  [default: the folder's]")
@click.option("--force", is_flag=True, help="Replace an existing forge.yaml.")
@click.option("--dry-run", is_flag=True, help="Print it instead.")
def init(folder: Path, source: str | None, name: str | None, force: bool, dry_run: bool) -> None:
    """Write a commented forge.yaml into FOLDER."""
    from tritonforge.actions.init import init as run_init

    path, text = run_init(folder, source=source, name=name, force=force, dry_run=dry_run)
    if dry_run:
        click.echo(text, nl=False)
    else:
        there = "" if path.parent.resolve() == Path.cwd() else f" --spec {path}"
        click.echo(f"wrote {path}; next: tritonforge build{there}")
