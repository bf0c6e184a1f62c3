"""How long a build takes that has nothing to do, compared with ``dvc repro`` that has nothing to do.

A spec of 500 small ONNX models against a pipeline of 500 stages, one file in and one file out each, over the same
files; whole processes in turns, medians. Then whether the cost is linear: what a model more costs between that size and
twice it, over what it costs between half that size and it (a quadratic cost would give 2). Of each size the quickest
run counts there: what disturbs a run is more than the tens of milliseconds that the sizes differ by.

    python benchmarks/nothing_to_do.py [--models 500] [--rounds 5] [--peers FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
from claims import Claim, finish
from process_tree import measure, quiet_environment
from small_models import write_spec

PROGRAM = str(Path(sys.executable).with_name("tritonforge"))
BOUND, SPREAD = 10.0, 1.25
UP_TO_DATE = "Data and pipelines are up to date."


def write_pipeline(folder: Path, models: Path, dvc: Path, environment: dict[str, str]) -> None:
    """A pipeline of one stage a model, with the lock as dvc itself leaves it, so that there is nothing to run.

    In dvc's favour the outputs stay outside its cache (``cache: false``), where it would look too.
    """
    folder.mkdir()
    stages, locked = {}, {}
    for source in sorted(models.glob("*.onnx")):
        data, made = source.read_bytes(), f"{source.stem}.out"
        (folder / source.name).write_bytes(data)
        (folder / made).write_bytes(data)
        command = f"cp {source.name} {made}"
        known = {"hash": "md5", "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(), "size": len(data)}
        stages[source.stem] = {"cmd": command, "deps": [source.name], "outs": [{made: {"cache": False}}]}
        locked[source.stem] = {
            "cmd": command,
            "deps": [{"path": source.name, **known}],
            "outs": [{"path": made, **known}],
        }
    # JSON is YAML.
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}, indent=1), encoding="utf-8")
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": locked}, indent=1), encoding="utf-8")
    subprocess.run([str(dvc), "init", "--no-scm", "--quiet"], cwd=folder, env=environment, check=True)
    subprocess.run([str(dvc), "config", "core.analytics", "false"], cwd=folder, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=int, default=500, help="at least 2 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=peers.FOLDER, help="folder of dvc's environment (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the models are built, and kept for the next run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dvc = peers.peer("dvc", options.peers) / "dvc"
    sizes = [options.models // 2, options.models, options.models * 2]
    own = (
        contextlib.nullcontext(options.folder)
        if options.folder
        else tempfile.TemporaryDirectory(prefix="nothing-to-do-")
    )
    with own as name:
        root = Path(name).resolve()
        environment = quiet_environment(root / "home", {"DVC_NO_ANALYTICS": "1", "CI": "1"})
        folders = {size: root / f"of{size}" for size in sizes}
        for size in reversed(sizes):  # the largest first: the others find its steps in the store
            if not folders[size].exists():
                write_spec(folders[size], size)
            print(f"building {size} models", file=sys.stderr)
            measure([PROGRAM, "build"], folders[size], environment)
        pipeline = root / "dvc"
        if not pipeline.exists():
            write_pipeline(pipeline, folders[options.models], dvc, environment)
        seconds: dict[str, list[float]] = {"dvc": [], **{str(size): [] for size in sizes}}
        cpu: dict[str, list[float]] = {name: [] for name in seconds}
        for number in range(options.rounds + 1):
            turns = list(seconds) if number % 2 else list(seconds)[::-1]
            for turn in turns:
                folder = pipeline if turn == "dvc" else folders[int(turn)]
                command = [str(dvc), "repro"] if turn == "dvc" else [PROGRAM, "build"]
                cost = measure(command, folder, environment)
                said = (folder / "benchmark.log").read_text(encoding="utf-8")
                if (UP_TO_DATE if turn == "dvc" else "nothing to build") not in said:
                    raise SystemExit(f"{turn} had something to do:\n{said[-2000:]}")
                if number:
                    seconds[turn].append(cost.wall_s)
                    cpu[turn].append(cost.cpu_s)
                print(f"{turn}: {cost}", file=sys.stderr)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    least = {name: min(taken) for name, taken in seconds.items()}
    ours, theirs = medians[str(options.models)], medians["dvc"]
    below, above = (
        (least[str(more)] - least[str(fewer)]) / (more - fewer) * 1e3 for fewer, more in itertools.pairwise(sizes)
    )
    per_model = {size: medians[str(size)] / size * 1e3 for size in sizes}
    claims = [
        Claim(
            f"nothing to do, {options.models} models: {BOUND:g}x faster than dvc",
            f"{ours:.2f} s",
            f"dvc repro {theirs:.2f} s",
            theirs / ours,
            BOUND,
            at_least=True,
        ),
        Claim(
            f"linear: a model more from {sizes[1]} to {sizes[2]} at most {SPREAD:g}x one from {sizes[0]} to {sizes[1]}",
            f"{above:.2f} ms",
            f"{below:.2f} ms",
            above / below,
            SPREAD,
        ),
    ]
    details = {
        "rounds": options.rounds,
        "seconds": seconds,
        "medians": medians,
        "cpu_medians": {name: statistics.median(taken) for name, taken in cpu.items()},
        "milliseconds_per_model": per_model,
    }
    return finish(claims, details, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
