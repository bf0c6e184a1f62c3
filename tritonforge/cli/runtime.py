"""``tritonforge runtime``."""

from __future__ import annotations

from pathlib import Path

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, say, table


@click.group()
def runtime() -> None:
    """The Triton that comes with tritonforge: no Docker, no GPU."""


@runtime.command()
@click.option("--offline", is_flag=True, help="Do not fetch anything.")
@click.option(
    "--wheels", type=click.Path(path_type=Path, file_okay=False), help="A folder that holds the wheels already."
)
@json_option
def install(offline: bool, wheels: Path | None, as_json: bool) -> None:
    """Fetch the pinned wheels of the server and of perf_analyzer, check them, and unpack what is needed."""
    from tritonforge.triton.embedded.install import install as run_install

    made = run_install(offline=offline, wheels=wheels, progress=None if as_json else say)
    data = {"release": made.release, "version": made.triton_version, "python": made.python, "path": str(made.root)}
    if as_json:
        emit_json(data)
    else:
        click.echo(f"Triton {made.triton_version} ({made.release}) for Python {made.python} in {made.root}")


@runtime.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the runtimes of this user."""
    from tritonforge.triton.embedded.install import find

    found = find()
    rows = (
        []
        if found is None
        else [
            {"release": found.release, "version": found.triton_version, "python": found.python, "path": str(found.root)}
        ]
    )
    if as_json:
        emit_json({"runtimes": rows})
    elif rows:
        table(
            None,
            ["release", "version", "Python", "path"],
            [[row["release"], row["version"], row["python"], row["path"]] for row in rows],
        )
    else:
        click.echo("none for this Python: `tritonforge runtime install` fetches it")
