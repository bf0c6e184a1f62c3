"""Groups of options that commands compose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _stack(*options: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


spec_options = _stack(
    click.option("--spec", type=click.Path(path_type=Path), help="The spec, or its folder.  [default: forge.yaml]"),
    click.option(
        "--overlay", "overlays", multiple=True, type=click.Path(path_type=Path), help="Lay this file over it."
    ),
)
platform_option = click.option("--platform", help="A platform of the spec.  [default: its first]")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
release_option = click.option(
    "--release", "reference", help="A release, by the beginning of its digest.  [default: current]"
)
server_options = _stack(
    click.option(
        "--server", help="Use a running server: a connection of the spec, or http://HOST:PORT, grpc://HOST:PORT."
    ),
    click.option(
        "--tritonserver",
        type=click.Path(path_type=Path),
        help="Use this tritonserver (or /opt/tritonserver), not the embedded one.",
    ),
    click.option("--container", help="Serve in a container of this image, with Docker."),
)
