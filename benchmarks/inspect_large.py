"""How long ``tritonforge inspect`` takes on an ONNX model with 4 GB of external data, and how much memory it needs.

Compared in the same run with a Python process that does ``onnx.load(load_external_data=False)`` and nothing else.
The data file is sparse: no weight is read by either, so that its content does not matter. Rounds are interleaved, and
what is printed are medians.

    python benchmarks/inspect_large.py [--nodes 5000] [--gigabytes 4] [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOAD = "import sys, onnx; onnx.load(sys.argv[1], load_external_data=False)"
MAKE = "import sys, pathlib, inspect_large as it; it.large_model(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))"
PROGRAM = Path(sys.executable).with_name("tritonforge")


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds of wall time, and its peak resident memory in MB (10^6 bytes)."""

    seconds: float
    megabytes: float


def large_model(folder: Path, nodes: int, size: int) -> Path:
    """A stack of blocks MatMul, Add, Sigmoid, Mul, Add with ``size`` bytes of external weights in a sparse file."""
    import onnx
    from onnx import TensorProto, helper

    blocks = max(1, nodes // 5)
    width = max(1, int((size / blocks / 4) ** 0.5))
    made, weights, offset, last = [], [], 0, "x"
    for block in range(blocks):
        for name, shape in ((f"layers.{block}.weight", [width, width]), (f"layers.{block}.bias", [width])):
            length = 4 * shape[0] * (shape[1] if len(shape) == 2 else 1)
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", "weights.bin"), ("offset", str(offset)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
            weights.append(tensor)
            offset += length
        names = [f"/layers.{block}/{part}_output_0" for part in ("MatMul", "Add", "Sigmoid", "Mul", "Add_1")]
        inputs = [
            [last, f"layers.{block}.weight"],
            [names[0], f"layers.{block}.bias"],
            [names[1]],
            [names[1], names[2]],
            [names[3], last],
        ]
        for kind, takes, gives in zip(("MatMul", "Add", "Sigmoid", "Mul", "Add"), inputs, names, strict=True):
            made.append(helper.make_node(kind, takes, [gives], name=gives.removesuffix("_output_0")))
        last = names[4]
    graph = helper.make_graph(
        made,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="benchmark")
    path = folder / "large.onnx"
    onnx.save_model(model, path)
    with (folder / "weights.bin").open("wb") as stream:
        stream.truncate(offset)
    return path


def measure(command: list[str]) -> Run:
    """Run a command to its end. Its peak counts from this process's own size, which is kept small therefore.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[:3]} ended with {process.returncode}")
    return Run(seconds, used.ru_maxrss * 1024 / 1e6)


def compare(model: Path, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds, after one round to warm the file cache."""
    commands = {
        "inspect --json": [str(PROGRAM), "inspect", str(model), "--json"],
        "inspect": [str(PROGRAM), "inspect", str(model)],
        "onnx.load": [sys.executable, "-c", LOAD, str(model)],
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        names = list(commands) if number % 2 else list(reversed(commands))
        for name in names:
            done = measure(commands[name])
            if number:
                runs[name].append(done)
    result: dict[str, Any] = {
        name: {
            "seconds": statistics.median(run.seconds for run in done),
            "peak_megabytes": statistics.median(run.megabytes for run in done),
        }
        for name, done in runs.items()
    }
    for name in ("inspect --json", "inspect"):
        ratios = [mine.seconds / its.seconds for mine, its in zip(runs[name], runs["onnx.load"], strict=True)]
        result[name]["times_onnx_load"] = statistics.median(ratios)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, str(options.nodes), str(int(options.gigabytes * 1e9))]
        subprocess.run([sys.executable, "-c", MAKE, *arguments], cwd=Path(__file__).parent, check=True)
        model = Path(folder) / "large.onnx"
        result = {
            "nodes": options.nodes,
            "external_bytes": (model.parent / "weights.bin").stat().st_size,
            "graph_bytes": model.stat().st_size,
            "rounds": options.rounds,
            **compare(model, options.rounds),
        }
    if options.json:
        print(json.dumps(result, sort_keys=True))
        return
    lines = [f"{result['nodes']} nodes, {result['external_bytes'] / 1e9:.1f} GB of external data"]
    for name in ("onnx.load", "inspect --json", "inspect"):
        one = result[name]
        ratio = f", {one['times_onnx_load']:.2f} x onnx.load" if "times_onnx_load" in one else ""
        lines.append(f"{name:15} {one['seconds'] * 1e3:6.0f} ms, peak {one['peak_megabytes']:5.0f} MB{ratio}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
