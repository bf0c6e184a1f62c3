"""How much faster a second core makes a build from scratch: 200 small ONNX models, on one core and on two.

Whole processes in turns, each with an empty store, held to those cores by taskset, so that on one core the command and
its worker share it. The ratio is the median of those of the rounds: what one round runs one after the other meets the
same neighbours on the machine. Nothing else should run on it.

    python benchmarks/two_cores.py [--models 200] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from claims import Claim, finish
from process_tree import Cost, measure, quiet_environment
from small_models import write_spec

PROGRAM = str(Path(sys.executable).with_name("tritonforge"))
BOUND = 1.6


def from_scratch(spec: Path, root: Path, cores: int) -> Cost:
    """One build with an empty store and no build folder."""
    home = root / "home"
    for left in (home, spec.parent / "build", spec.parent / "forge.lock"):
        if left.is_dir():
            shutil.rmtree(left)
        left.unlink(missing_ok=True)
    os.sync()
    held = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    return measure(["taskset", "-c", held, PROGRAM, "build"], spec.parent, quiet_environment(home))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs: dict[int, list[Cost]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="two-cores-") as name:
        root = Path(name)
        spec = write_spec(root / "spec", options.models)
        for number in range(options.rounds):
            for cores in (1, 2) if number % 2 else (2, 1):
                cost = from_scratch(spec, root, cores)
                print(f"{cores} cores: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s of CPU", file=sys.stderr)
                runs[cores].append(cost)
    wall = {cores: statistics.median(cost.wall_s for cost in costs) for cores, costs in runs.items()}
    cpu = {cores: statistics.median(cost.cpu_s for cost in costs) for cores, costs in runs.items()}
    ratios = [one.wall_s / two.wall_s for one, two in zip(runs[1], runs[2], strict=True)]
    claim = Claim(
        f"{options.models} models from scratch on two cores: {BOUND:g}x one core's speed",
        f"two: {wall[2]:.1f} s",
        f"one: {wall[1]:.1f} s",
        statistics.median(ratios),
        BOUND,
        at_least=True,
    )
    details = {"rounds": options.rounds, "wall_s": wall, "cpu_s": cpu, "ratios": ratios}
    return finish([claim], details, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
