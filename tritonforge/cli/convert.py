"""``tritonforge convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tritonforge.cli.options import json_option
from tritonforge.cli.output import emit_json, table

if TYPE_CHECKING:
    from tritonforge.actions.convert import Conversion


@click.command()
@click.argument("model")
@click.option(
    "--to",
    required=True,
    metavar="WHAT",
    help="onnx (or onnxruntime), ort, pytorch (or torchscript), aoti, openvino, python.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A folder; or a file, where it ends in .onnx, .ort, .pt or .pt2.  [default: MODEL-WHAT beside the model]",
)
@click.option("--precision", metavar="PRECISION", help="fp32, fp16, bf16 or int8.  [default: the model's own]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=TYPE[DIMS]",
    help="An input that the model does not tell itself, one item without the batch: x=FP32[3,224,224].",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any key of a model in forge.yaml: torch.module=net:Net, simplify=true, tolerance.abs=0.01.",
)
@click.option("--allow-pickle", is_flag=True, help="Unpickle MODEL, which runs whatever code it holds.")
@click.option("--force", is_flag=True, help="Replace what an earlier conversion wrote there.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Steps at once.  [default: the cores of this machine]")
@click.option("--dry-run", is_flag=True, help="Show which steps would run; run none.")
@json_option
def convert(
    model: str,
    to: str,
    output: Path | None,
    precision: str | None,
    inputs: tuple[str, ...],
    settings: tuple[str, ...],
    allow_pickle: bool,
    force: bool,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Convert MODEL to what a backend serves, without a spec, and compare the result with its source.

    MODEL is a file or folder of any format that `inspect` knows, or a source by name (hub:ORG/NAME, torchvision:NAME).
    The steps are those of a build, and share its store. Beside the result lies an account of what was compared.
    """
    from tritonforge.actions.conversion_spec import Wanted
    from tritonforge.actions.convert import convert as run_convert
    from tritonforge.cli.progress import BuildProgress

    wanted = Wanted(model, to.lower(), None if precision is None else precision.lower(), inputs, settings, allow_pickle)
    with BuildProgress(quiet=as_json or dry_run) as observer:
        done = run_convert(wanted, output, force=force, dry_run=dry_run, jobs=jobs, observer=observer)
    if as_json:
        emit_json(done.to_json())
    elif done.account is None:
        rows = [[item.node.step, item.action, "; ".join(item.reasons)] for item in done.steps]
        table(f"{done.output} would be written", ["step", "", "why"], rows)
    else:
        _show(done, done.account)


def _show(done: Conversion, account: Any) -> None:
    results = (done.results or {}).values()
    ran = sum(item.status == "built" for item in results)
    size = sum(item["size"] for item in account["files"].values())
    click.echo(
        f"{done.output}: {account['format']}, {len(account['files'])} file{'s' * (len(account['files']) != 1)}, "
        f"{size:,} bytes ({ran} step{'s' * (ran != 1)} run, {len(results) - ran} from the store)"
    )
    compared = account["comparison"]
    if compared is None:
        click.echo("not compared with anything: it is code")
        return
    rows = [
        [name, *("–" if item[key] is None else f"{item[key]:.3g}" for key in ("max_abs", "max_rel", "cosine"))]
        for name, item in compared["outputs"].items()
    ]
    title = f"{compared['cases']} cases in {compared['runner']} against {compared['reference']}"
    table(title, ["output", "largest difference", "relative", "cosine"], rows)
