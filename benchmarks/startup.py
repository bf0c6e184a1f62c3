"""How long ``tritonforge --help`` takes, compared with ``python -c "import click"``, which it stands on.

Both are run in turns, as users run them, with the compiled modules of Python in place: medians of whole processes.
The exit status is 1 where the ratio is above the bound.

    python benchmarks/startup.py [--rounds 20] [--bound 1.5] [--json]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from claims import Claim, finish

PROGRAM = Path(sys.executable).with_name("tritonforge")
COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "tritonforge --help": [str(PROGRAM), "--help"],
}


def once(command: list[str]) -> float:
    """Seconds of one process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every command in ``rounds`` turns, after two that do not count; each turn begins with another one."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    names = list(COMMANDS)
    for turn in range(rounds + 2):
        for name in names if turn % 2 else names[::-1]:
            taken = once(COMMANDS[name])
            if turn >= 2:
                seconds[name].append(taken)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--bound", type=float, default=1.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = measure(options.rounds)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ratio = medians["tritonforge --help"] / medians["import click"]
    claim = Claim(
        f"tritonforge --help: at most {options.bound:g}x import click",
        f"{medians['tritonforge --help'] * 1e3:.0f} ms",
        f"import click {medians['import click'] * 1e3:.0f} ms",
        ratio,
        options.bound,
    )
    details = {"rounds": options.rounds, "seconds": medians}
    sys.exit(finish([claim], details, as_json=options.json))


if __name__ == "__main__":
    main()
