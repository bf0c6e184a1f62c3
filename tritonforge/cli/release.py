"""``tritonforge release``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritonforge.cli.options import json_option, platform_option, spec_options
from tritonforge.cli.output import emit_json, table


@click.group()
def release() -> None:
    """Immutable versions of the whole repository."""


@release.command()
@click.argument("reference", required=False)
@spec_options
@platform_option
@json_option
def show(
    reference: str | None, spec: Path | None, overlays: tuple[Path, ...], platform: str | None, as_json: bool
) -> None:
    """Show a release (the current one, or REFERENCE: the beginning of a digest) and what it was proven on."""
    from tritonforge.actions.show import view_release
    from tritonforge.actions.workspace import open_workspace
    from tritonforge.repository.release import entry_title

    view = view_release(open_workspace(spec, overlays), platform, reference)
    if as_json:
        emit_json(view.to_json())
        return
    document = view.release.document
    triton = document["platform"]["triton"]
    state = "current" if view.current else "not current"
    click.echo(f"{document['name']} for {view.platform.name} (Triton {triton}): {view.release.digest} ({state})")
    click.echo(f"in {view.release.folder}")
    rows = [
        [
            entry_title(entry),
            entry["kind"],
            entry["version"],
            entry["backend"],
            entry["max_batch_size"] or "–",
            view.proofs[entry_title(entry)],
        ]
        for entry in view.release.models()
    ]
    table(None, ["model", "kind", "version", "backend", "max batch", "proven on"], rows)
    for name, gate in view.gates.items():
        click.echo(
            f"gate {name}: {'pass' if gate['ok'] else 'inconclusive' if gate['ok'] is None else 'FAIL'} at {gate['at']}"
        )
    if document["server"]["arguments"]:
        click.echo("server: " + " ".join(document["server"]["arguments"]))


@release.command("list")
@spec_options
@platform_option
@json_option
def list_(spec: Path | None, overlays: tuple[Path, ...], platform: str | None, as_json: bool) -> None:
    """List the releases of a platform, the newest last."""
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(spec, overlays)
    folder = workspace.releases(workspace.platform(platform))
    current = folder.current()
    rows: list[dict[str, Any]] = [
        {"release": item["release"], "at": item["at"], "kept": (folder.releases / item["release"]).is_dir()}
        for item in folder.history()
    ]
    if as_json:
        emit_json({"releases": rows, "current": None if current is None else current.digest})
        return
    marks = [
        [
            item["release"][:12],
            item["at"],
            "" if item["kept"] else "deleted",
            "current" if current and item["release"] == current.digest else "",
        ]
        for item in rows
    ]
    table(None, ["release", "made current", "", ""], marks)
