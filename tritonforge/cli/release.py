"""``tritonforge release``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tritonforge.cli.options import json_option, platform_option, spec_options
from tritonforge.cli.output import emit_json, say, table
from tritonforge.cli.progress import bytes_bar
from tritonforge.errors import ExitCode


@click.group()
def release() -> None:
    """Immutable versions of the whole repository: seen, and taken elsewhere in one file."""


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


key_option = click.option(
    "--key", type=click.Path(path_type=Path), help="The public key that must have signed it (OpenSSH's or PEM)."
)
signature_option = click.option("--require-signature", is_flag=True, help="Refuse a bundle without a signature.")


@release.command("export")
@click.argument("reference", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file.  [default: NAME-PLATFORM-DIGEST.tar.zst]"
)
@click.option("--sign-key", type=click.Path(path_type=Path), help="Sign with this Ed25519 key (OpenSSH's or PEM).")
@click.option("--passphrase-env", metavar="NAME", help="The environment variable with the passphrase of the key.")
@click.option("--detached", is_flag=True, help="Sign the file as well, into FILE.sig.")
@spec_options
@platform_option
@json_option
def export(
    reference: str | None,
    output: Path | None,
    sign_key: Path | None,
    passphrase_env: str | None,
    detached: bool,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Write a release (the current one, or REFERENCE) into one file: models, proofs, and a bill of materials."""
    from tritonforge.actions.bundle import Signing, export_release
    from tritonforge.actions.workspace import open_workspace

    if sign_key is None and (detached or passphrase_env):
        raise click.UsageError("--detached and --passphrase-env go with --sign-key.")
    signing = None if sign_key is None else Signing(sign_key, passphrase_env, detached)
    with bytes_bar("export", quiet=as_json) as progress:
        made = export_release(open_workspace(spec, overlays), platform, reference, output, signing, progress)
    if as_json:
        emit_json(
            {
                "file": str(made.file),
                "sha256": made.sha256,
                "size": made.size,
                "release": made.manifest.release,
                "image": made.manifest.image.model_dump(),
                "files": len(made.manifest.files),
                "bytes": made.content,
                "signer": None if made.signer is None else made.signer.fingerprint,
                "signature": None if made.signature_file is None else str(made.signature_file),
            }
        )
        return
    click.echo(
        f"{made.file}: release {made.manifest.release[:12]}, {len(made.manifest.files)} files, "
        f"{size_text(made.content)} in {size_text(made.size)}"
    )
    click.echo(f"sha256 {made.sha256}")
    click.echo("not signed" if made.signer is None else f"signed by {made.signer.fingerprint}")
    if made.manifest.image.digest is None:
        say(f"the image {made.manifest.image.reference} goes along by its name alone: its digest is not known")


@release.command()
@click.argument("file", type=click.Path(path_type=Path))
@key_option
@signature_option
@json_option
def verify(file: Path, key: Path | None, require_signature: bool, as_json: bool) -> None:
    """Read all of a bundle and say whether it may be used."""
    from tritonforge.actions.bundle import verify_release

    with bytes_bar("verify", quiet=as_json) as progress:
        verdict = verify_release(file, key, require_signature, progress)
    if as_json:
        emit_json(verdict.to_json())
    elif verdict.problems:
        rows = [[item.path or "", item.what, item.expected or "", item.found or ""] for item in verdict.problems]
        table(f"{file} is bad", ["file", "problem", "expected", "found"], rows)
    elif verdict.manifest is not None:
        manifest = verdict.manifest
        click.echo(f"{file} is good: {manifest.name}, release {manifest.release}")
        click.echo(f"{len(manifest.files)} files, {size_text(manifest.size)}; served by {manifest.image.reference}")
        click.echo(signature_text(verdict.signer, verdict.trusted))
    if not verdict.ok:
        raise click.exceptions.Exit(int(ExitCode.BAD))


@release.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@key_option
@signature_option
@spec_options
@platform_option
@json_option
def import_(
    file: Path,
    key: Path | None,
    require_signature: bool,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Check a bundle and put its release among those of a platform. What is current stays current."""
    from tritonforge.actions.bundle import import_release
    from tritonforge.actions.workspace import open_workspace

    workspace = open_workspace(spec, overlays)
    with bytes_bar("import", quiet=as_json) as progress:
        done = import_release(
            workspace, platform, file, key, require_signature, progress, lambda holder: say(f"waiting for {holder}")
        )
    if as_json:
        emit_json({**done.verdict.to_json(), "path": str(done.release.folder), "new": done.new})
        return
    click.echo(f"release {done.release.digest[:12]} is {'here now' if done.new else 'here already'}")
    click.echo(f"in {done.release.folder}")
    click.echo(signature_text(done.verdict.signer, done.verdict.trusted))


@release.command()
@click.argument("url")
@click.argument("reference", metavar="[RELEASE]", required=False)
@click.option("--no-latest", is_flag=True, help="Leave what `release pull URL latest` finds as it is.")
@click.option("--sign-key", type=click.Path(path_type=Path), help="Sign with this Ed25519 key (OpenSSH's or PEM).")
@click.option("--passphrase-env", metavar="NAME", help="The environment variable with the passphrase of the key.")
@click.option("--all", "everything", is_flag=True, help="Send what is there, too: that mends what is damaged there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@spec_options
@platform_option
@json_option
def push(
    url: str,
    reference: str | None,
    no_latest: bool,
    sign_key: Path | None,
    passphrase_env: str | None,
    everything: bool,
    dry_run: bool,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Send a release (the current one, or RELEASE) to s3://, gs://, az:// or file://: only what is missing there."""
    from tritonforge.actions.bundle import Signing
    from tritonforge.actions.remote_release import PushOptions
    from tritonforge.actions.remote_release import push as push_release
    from tritonforge.actions.workspace import open_workspace

    if sign_key is None and passphrase_env:
        raise click.UsageError("--passphrase-env goes with --sign-key.")
    signing = None if sign_key is None else Signing(sign_key, passphrase_env)
    options = PushOptions(not no_latest, signing, everything, dry_run)
    with bytes_bar("push", quiet=as_json) as progress:
        done = push_release(open_workspace(spec, overlays), platform, url, reference, options, progress)
    if as_json:
        emit_json({name: getattr(done, name) for name in done.__slots__})
        return
    verb = "would be sent" if dry_run else "sent"
    click.echo(
        f"release {done.release[:12]}: {done.sent} of {done.files} files {verb}, "
        f"{size_text(done.sent_bytes)} of {size_text(done.size)}"
    )


@release.command()
@click.argument("url")
@click.argument("reference", metavar="RELEASE|latest")
@click.option("--current", is_flag=True, help="Make it current.")
@key_option
@click.option("--require-signature", is_flag=True, help="Refuse a release without a signature.")
@spec_options
@platform_option
@json_option
def pull(
    url: str,
    reference: str,
    current: bool,
    key: Path | None,
    require_signature: bool,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Fetch what is missing here of a release, and put it among those of a platform. What is current stays current."""
    from tritonforge.actions.remote_release import PullOptions
    from tritonforge.actions.remote_release import pull as pull_release
    from tritonforge.actions.workspace import open_workspace

    options = PullOptions(key, require_signature, current)
    workspace = open_workspace(spec, overlays)
    with bytes_bar("pull", quiet=as_json) as progress:
        done = pull_release(
            workspace, platform, url, reference, options, progress, lambda holder: say(f"waiting for {holder}")
        )
    if as_json:
        emit_json(
            {
                "release": done.release.digest,
                "path": str(done.release.folder),
                "new": done.new,
                "fetched": done.fetched,
                "fetched_bytes": done.fetched_bytes,
                "signer": None if done.signer is None else done.signer.fingerprint,
            }
        )
        return
    click.echo(
        f"release {done.release.digest[:12]} is {'here now' if done.new else 'here already'}: "
        f"{done.fetched} files fetched, {size_text(done.fetched_bytes)}"
    )
    click.echo(f"in {done.release.folder}")
    if done.signer is not None:
        click.echo(f"signed by {done.signer.fingerprint}")


def signature_text(signer: Any, trusted: bool | None) -> str:
    """Who signed a bundle, and what that is worth."""
    if signer is None:
        return "not signed: it is whole, and could be anybody's"
    if trusted:
        return f"signed by {signer.fingerprint}, as asked for"
    return f"signed by {signer.fingerprint}; name the key that you trust by --key"


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
