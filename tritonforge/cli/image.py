"""``tritonforge image``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritonforge.cli.options import json_option, platform_option, release_option, spec_options
from tritonforge.cli.output import emit_json, say


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["gpu", "cpu", "jetson", "release"]),
    help="What to serve on, with the release mounted; or `release`: with it baked in.  [default: by the platform]",
)
@click.option("--base", metavar="IMAGE", help="An image of Triton to start from.  [default: the platform's]")
@click.option("--minimal", metavar="IMAGE", help="The smaller image to end on.  [default: NVIDIA's beside its own]")
@click.option("--wheels", type=click.Path(path_type=Path), help="Take Python packages from this folder alone.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder to write.  [default: build/PLATFORM/image-KIND]"
)
@click.option("--build", "tag", metavar="TAG", help="Build it too, with Docker.")
@release_option
@spec_options
@platform_option
@json_option
def image(
    kind: Any,
    base: str | None,
    minimal: str | None,
    wheels: Path | None,
    output: Path | None,
    tag: str | None,
    reference: str | None,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Write a folder to build a serving image from, with the backends and packages that a release needs."""
    from tritonforge.actions.image import ImageOptions, image_context
    from tritonforge.actions.workspace import open_workspace

    options = ImageOptions(kind, base, minimal, wheels, output)
    made = image_context(open_workspace(spec, overlays), platform, reference, options)
    if not made.pinned:
        say("a base is named by its tag alone, which can be moved: --base IMAGE@sha256:… builds the same again")
    built: str | None = None
    if tag is not None:
        from tritonforge.actions.image_build import build_image

        built = build_image(made, tag, say)
    if as_json:
        emit_json({**made.to_json(), "image": built, "tag": tag})
        return
    click.echo(f"{made.folder}: {made.kind}, from {made.base}" + (f" to {made.minimal}" if made.minimal else ""))
    click.echo("backends: " + ", ".join(made.backends))
    if made.requirements:
        click.echo("Python packages: " + ", ".join(made.requirements))
    if built is not None:
        click.echo(f"built {tag}: {built}")
    else:
        click.echo(f"build it: docker build -t TAG {made.folder}")
