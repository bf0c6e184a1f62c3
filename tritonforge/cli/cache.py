"""``tritonforge cache``."""

from __future__ import annotations

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, table


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


@click.group()
def cache() -> None:
    """The store of everything that steps made ($TRITONFORGE_HOME/store, or the user's cache folder)."""


@cache.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List what is in the store, the newest first."""
    from tritonforge.actions.cache import disk_use, list_cache
    from tritonforge.artifact.store import LocalStore, default_home

    store = LocalStore(default_home() / "store")
    entries = list_cache(store)
    if as_json:
        emit_json({"store": str(store.root), "bytes": disk_use(store), "entries": [item.to_json() for item in entries]})
        return
    rows = [
        [item.key[:12], item.step, item.artifact[:12], megabytes(item.size), item.made, "yes" if item.used else ""]
        for item in entries
    ]
    table(f"{store.root}: {megabytes(disk_use(store))}", ["key", "step", "artifact", "size", "made", "in use"], rows)


@cache.command()
@click.option("--older-than", default=0.0, show_default=True, metavar="DAYS", help="Keep what is younger.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
def gc(older_than: float, dry_run: bool, as_json: bool) -> None:
    """Delete what no release, no lock and no last build needs."""
    from tritonforge.actions.cache import collect_garbage
    from tritonforge.artifact.store import LocalStore, default_home

    done = collect_garbage(LocalStore(default_home() / "store"), older_than_s=older_than * 86400, dry_run=dry_run)
    if as_json:
        emit_json(done.to_json())
    else:
        verb = "would delete" if dry_run else "deleted"
        click.echo(
            f"{verb} {done.keys} keys, {done.artifacts} manifests, {done.blobs} files: {megabytes(done.bytes)} free"
        )


@cache.command()
@click.option("--dry-run", is_flag=True, help="Only say what is damaged.")
@json_option
def verify(dry_run: bool, as_json: bool) -> None:
    """Read every byte of the store; what is damaged is removed, and made anew by the next build."""
    from tritonforge.actions.cache import verify_cache
    from tritonforge.artifact.store import LocalStore, default_home
    from tritonforge.errors import ExitCode

    damaged = verify_cache(LocalStore(default_home() / "store"), dry_run=dry_run)
    if as_json:
        emit_json({"damaged": [item.to_json() for item in damaged]})
    elif damaged:
        table(None, ["artifact", "file", "sha256"], [[item.artifact[:12], item.path, item.sha256] for item in damaged])
    else:
        click.echo("every file is what its digest says")
    if damaged:
        raise SystemExit(int(ExitCode.BAD))
