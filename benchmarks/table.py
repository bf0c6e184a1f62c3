"""Runs the benchmarks one after the other, and prints one table of what they hold.

    python benchmarks/table.py [--only startup serving ...] [--json]

Everything that a benchmark needs beyond its own --json can be said after ``--``, for each by itself:
``-- nothing_to_do --rounds 3 serving --rounds 2``. The exit status is 1 where a bound does not hold or one failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from claims import lines_of, machine

BENCHMARKS = ("startup", "nothing_to_do", "publish_large", "serving", "two_cores")


def split(words: list[str]) -> dict[str, list[str]]:
    """The options of each benchmark, from words in which a benchmark's name begins its own."""
    options: dict[str, list[str]] = {}
    for word in words:
        if word in BENCHMARKS:
            current = options.setdefault(word, [])
        elif options:
            current.append(word)
        else:
            raise SystemExit(f"'{word}' belongs to no benchmark; begin with one of {', '.join(BENCHMARKS)}")
    return options


def main() -> int:
    words, _, more = " ".join(sys.argv[1:]).partition("-- ")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words.split())
    theirs = split(more.split())
    rows: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    failed: list[str] = []
    for name in options.only:
        print(f"{name} …", file=sys.stderr)
        script = Path(__file__).with_name(f"{name}.py")
        ran = subprocess.run(
            [sys.executable, str(script), *theirs.get(name, []), "--json"], stdout=subprocess.PIPE, check=False
        )
        try:
            results[name] = json.loads(ran.stdout)
        except ValueError:
            failed.append(name)
            continue
        rows += results[name]["rows"]
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows, "failed": failed, "results": results}, indent=1))
    else:
        print("\n".join(lines_of(rows)))
        print(", ".join(f"{key}: {value}" for key, value in machine().items()))
    for name in failed:
        print(f"{name} did not come to its end", file=sys.stderr)
    return int(bool(failed) or not all(row["holds"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
