"""``tritonforge serve``, ``validate`` and ``infer``: the commands that talk to a live Triton."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tritonforge.cli.options import json_option, platform_option, release_option, server_options, spec_options
from tritonforge.cli.output import emit_json, say, table, verdict
from tritonforge.errors import ExitCode


@click.command()
@spec_options
@platform_option
@release_option
@server_options
@click.option(
    "--reuse", is_flag=True, help="Take the evidence of an earlier validation of this very release, if it passed."
)
@json_option
def validate(
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    reference: str | None,
    server: str | None,
    tritonserver: Path | None,
    container: str | None,
    reuse: bool,
    as_json: bool,
) -> None:
    """Load every model of a release in a live Triton, compare what it says with its config and what it answers with
    its golden cases, over HTTP and gRPC."""
    from tritonforge.actions.live import ServerChoice
    from tritonforge.actions.validate import validate as run_validate
    from tritonforge.actions.workspace import open_workspace

    found = run_validate(
        open_workspace(spec, overlays),
        platform_name=platform,
        reference=reference,
        choice=ServerChoice(server, tritonserver, container),
        reuse=reuse,
        progress=(lambda text: None) if as_json or not sys.stderr.isatty() else say,
    )
    if as_json:
        emit_json(found.to_json())
    else:
        how = "proven before" if found.reused else "proven" if found.ok else "NOT proven"
        click.echo(f"release {found.release[:12]}: {how} on {found.server['title']}")
        rows = []
        for model in found.models:
            data = model.to_json()
            worst = "–" if data["max_abs"] is None else f"{data['max_abs']:.1e}" if data["max_abs"] else "0"
            note = "instances moved to the CPU for this server" if model.overridden else model.note or ""
            rows.append([model.folder, model.version, verdict(model.ok), data["cases"], data["compared"], worst, note])
        table(None, ["model", "version", "", "requests", "compared", "largest difference", ""], rows)
    for model in found.models:
        for problem in model.problems:
            say(click.style("error: ", fg="red", bold=True) + f"{model.folder}: {problem}")
        for case in model.cases:
            if not case.ok:
                say(
                    click.style("error: ", fg="red", bold=True)
                    + f"{model.folder}: {case.case} over {case.protocol}: {case.reason}"
                )
    if not found.ok:
        raise SystemExit(int(ExitCode.BAD))


@click.command()
@spec_options
@platform_option
@release_option
@server_options
@click.option("--http-port", type=int, default=8000, show_default=True, help="0: a free one.")
@click.option("--grpc-port", type=int, default=8001, show_default=True, help="0: a free one.")
@click.option("--metrics-port", type=int, default=8002, show_default=True, help="0: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--log", type=click.Path(path_type=Path), help="The server's log.  [default: build/PLATFORM/logs/serve.log]"
)
def serve(
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    reference: str | None,
    server: str | None,
    tritonserver: Path | None,
    container: str | None,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    host: str,
    log: Path | None,
) -> None:
    """Serve a release until interrupted."""
    from tritonforge.actions.live import ServerChoice
    from tritonforge.actions.serve import serve as run_serve
    from tritonforge.actions.workspace import open_workspace
    from tritonforge.errors import UsageError

    if server is not None:
        raise UsageError("`serve` starts a server; --server names one that runs already")
    ports = {"http": http_port or None, "grpc": grpc_port or None, "metrics": metrics_port or None}
    run_serve(
        open_workspace(spec, overlays),
        platform_name=platform,
        reference=reference,
        choice=ServerChoice(None, tritonserver, container),
        ports=ports,
        host=host,
        log=log,
        say=say,
    )


@click.command()
@click.argument("model")
@click.argument("value", required=False)
@spec_options
@platform_option
@server_options
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="Several inputs: each a file, a text or JSON."
)
@click.option(
    "--protocol", type=click.Choice(["http", "grpc"]), help="The protocol.  [default: what the server offers]"
)
@click.option("--version", "model_version", default="", help="A version of the model.  [default: the newest]")
@json_option
def infer(
    model: str,
    value: str | None,
    spec: Path | None,
    overlays: tuple[Path, ...],
    platform: str | None,
    server: str | None,
    tritonserver: Path | None,
    container: str | None,
    inputs: tuple[str, ...],
    protocol: str | None,
    model_version: str,
    as_json: bool,
) -> None:
    """Ask MODEL about VALUE: a file (its bytes, an .npy array, or .json), a text, or JSON; `-` reads standard input.

    The server is --server, else the one that `tritonforge serve` runs for this spec, else one started for this request.
    """
    from tritonforge.actions.infer import infer as run_infer
    from tritonforge.actions.live import ServerChoice

    answer = run_infer(
        spec,
        overlays,
        platform_name=platform,
        choice=ServerChoice(server, tritonserver, container),
        model=model,
        value=value,
        named=inputs,
        protocol=protocol,
        version=model_version,
        say=say,
    )
    if as_json:
        emit_json(answer.to_json())
        return
    for name, array in answer.outputs.items():
        if answer.rows:
            for index, row in enumerate(array):
                click.echo(f"{name}[{index}]: {_brief(row)}")
        else:
            click.echo(f"{name}: {_brief(array)}")


def _brief(array: Any) -> str:
    """An output for people: a single value alone, a vector of scores by its highest."""
    flat = array.reshape(-1)
    if flat.dtype == object:
        texts = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in flat[:10]]
        more = f" … ({flat.size} in all)" if flat.size > 10 else ""
        return ", ".join(texts) + more
    if flat.size == 1:
        return f"{flat[0]:.6g}" if flat.dtype.kind == "f" else str(flat[0])
    values = ", ".join(f"{item:.6g}" if flat.dtype.kind == "f" else str(item) for item in flat[:8])
    if flat.size <= 8:
        return f"[{values}]"
    best = f", largest {flat.max():.6g} at {int(flat.argmax())}" if flat.dtype.kind in "fiu" else ""
    return f"[{values}, …] {array.dtype}{list(array.shape)}{best}"
