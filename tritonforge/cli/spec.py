"""``tritonforge spec``."""

from __future__ import annotations

import click


@click.group()
def spec() -> None:
    """The format of forge.yaml."""


@spec.command()
def schema() -> None:
    """Print the JSON Schema, for editors: `# yaml-language-server: $schema=forge.schema.json`."""
    from tritonforge.cli.output import emit_json
    from tritonforge.spec.schema import json_schema

    emit_json(json_schema())
