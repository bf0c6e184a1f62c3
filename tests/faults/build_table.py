"""The page ``docs/build-faults.md``: what became of each fault of a build. The tests that cause them keep its rows."""

from __future__ import annotations

import collections
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.fault_rows import Rows, Table

GROUPS = {
    "kill": "Killed at a step",
    "full": "Disk full at a step",
    "world": "What else goes wrong",
    "store": "A store, releases and records that are damaged",
    "disk": "A disk with too little room",
    "random": "Killed at a random time",
}
IN_ONE = ("disk", "random")
"""Groups of very many rows of a kind: a sentence each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault: the exit codes are the disturbed build's (None: it depends on the moment) and the next one's.
    ``current`` is what was current between the two, ``looks`` how often a reader saw ``current`` whole meanwhile."""

    group: str
    fault: str
    exit: int | None
    current: str
    exit_then: int
    looks: int
    said: str


def keep(row: Row) -> None:
    """Hold the page to this row, or write it there when the table is made anew."""
    TABLE.keep(asdict(row))


def read_rows() -> Rows:
    """The rows of the page, by group and fault."""
    return TABLE.read()


def page(rows: Rows) -> str:
    """The page of the documentation."""
    looks = sum(int(row["looks"]) for row in rows.values())
    lines = [
        "# Faults of builds",
        "",
        "Each row is a test: a build that is disturbed once, while a reader looks at `current` without a pause",
        "and reads every file that its release names. Then a build that nothing disturbs: its release, all files",
        "of it and `forge.lock` are, byte for byte, those of builds that nothing ever disturbed, made elsewhere.",
        "*Current* is what was current between the two builds; exit codes are the disturbed build's (`killed` by",
        "SIGKILL) and the next one's.",
        "",
        "Three builds are disturbed: `first` (nothing was built before), `second` (over a release, which it",
        "replaces and deletes) and `repair` (`--force-model` over a store and a release that lost files). A step",
        "is one change of what others see: `#2` is the second time that a build gets there. A trace of the system",
        "calls of whole builds (fsync, rename, link, unlink) holds the list of steps to be complete.",
        "",
        f"{len(rows)} faults; the reader saw `current` whole {looks:,} times, and never otherwise. Made by",
        "`make faults`; the tests hold the page to it.",
        "",
    ]
    for group, title in GROUPS.items():
        chosen = [row for row in rows.values() if row["group"] == group]
        if not chosen:
            continue
        lines += [f"## {title}", ""]
        if group in IN_ONE:
            lines += [*_in_one(chosen), ""]
            continue
        lines += ["| fault | exit | current | next | what was said |", "|---|---|---|---|---|"]
        for row in sorted(chosen, key=_order):
            lines.append(f"| {row['fault']} | {_code(row)} | {row['current']} | {row['exit_then']} | {row['said']} |")
        lines.append("")
    lines += [
        "## What no build sees",
        "",
        "A finished file of the store or of a release carries a modification time that follows from its digest;",
        "whoever writes into it changes that, and the next build reads the file. A disk that loses bits of its own",
        "accord changes no time: `tritonforge cache verify` and `tritonforge build --force` read every byte.",
        "",
    ]
    return "\n".join(lines)


def _in_one(rows: list[dict[str, Any]]) -> list[str]:
    counts = collections.Counter(re.sub(r"\s*\d+$", "", row["fault"]) for row in rows)
    return [f"- {what}: {count} times, each followed by a good build" for what, count in sorted(counts.items())]


def _code(row: dict[str, Any]) -> object:
    return "any" if row["exit"] is None else "killed" if row["exit"] == -9 else row["exit"]


def _order(row: dict[str, Any]) -> tuple[str, int, str]:
    found = re.match(r"(\w+) (\d+) ", row["fault"])
    return (found[1], int(found[2]), "") if found else ("", 0, row["fault"])


TABLE = Table(
    Path(__file__).parents[2] / "docs" / "build-faults.md",
    Path(__file__).with_name("build_faults.json"),
    ("exit", "current", "exit_then"),
    page,
)
