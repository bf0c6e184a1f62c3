"""The page ``docs/rollout-faults.md``: what became of each fault. The tests that cause them hold the page to it."""

from __future__ import annotations

import collections
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.fault_rows import Rows, Table

PAGE = Path(__file__).parents[2] / "docs" / "rollout-faults.md"
ROWS = Path(__file__).with_name("rollout_faults.json")
"""What the page is made of."""

GROUPS = {
    "kill": "Killed at a point",
    "cut": "Connection lost at a point",
    "full": "Disk full at a point",
    "world": "What else goes wrong",
    "random": "Killed at a random time",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One fault: the exit codes are the disturbed command's and the next one's (None: there was none).
    ``failed`` -1 are some, as many as the machine is slow."""

    group: str
    fault: str
    serves: str
    exit: int
    requests: int
    failed: int
    then: str
    exit_then: int | None
    said: str


def keep(row: Row) -> None:
    """Hold the page to this row, or write it there when the table is made anew."""
    TABLE.keep(asdict(row))


def read_rows() -> Rows:
    """The rows of the page, by group and fault."""
    return TABLE.read()


def page(rows: Rows) -> str:
    """The page of the documentation."""
    asked = sum(int(row["requests"]) for row in rows.values())
    failing = sum(row["failed"] != 0 for row in rows.values())
    lines = [
        "# Faults of rollouts",
        "",
        "Each row is a test: a deployment from one release to another on an embedded target (two Tritons behind",
        "HAProxy), disturbed once, while clients ask over HTTP and gRPC without a pause. *Serves* is the release after",
        "the last command of the row; *old* is the one from before the fault. Exit codes are those of the disturbed",
        "command (`killed` by SIGKILL) and of the next one.",
        "",
        f"{len(rows)} faults, {asked:,} requests. Requests failed in {failing} of them, where what clients talk to was",
        "away itself. Made by `make faults`; the tests hold the page to it.",
        "",
    ]
    for group, title in GROUPS.items():
        chosen = [row for row in rows.values() if row["group"] == group]
        if not chosen:
            continue
        lines += [f"## {title}", ""]
        if group == "random":
            lines += [_in_one(chosen), ""]
            continue
        lines += [
            "| fault | exit | requests | failed | next | exit | serves | what was said |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in sorted(chosen, key=lambda item: (_number(item["fault"]), item["fault"])):
            code = "killed" if row["exit"] == -9 else row["exit"]
            failed = "some" if row["failed"] < 0 else row["failed"]
            after = "" if row["exit_then"] is None else row["exit_then"]
            lines.append(
                f"| {row['fault']} | {code} | {row['requests']} | {failed} | {row['then']} | {after} "
                f"| {row['serves']} | {row['said']} |"
            )
        lines.append("")
    return "\n".join(lines)


def _in_one(rows: list[dict[str, Any]]) -> str:
    asked, failed = (sum(int(row[name]) for row in rows) for name in ("requests", "failed"))
    after = collections.Counter(row["then"] for row in rows)
    words = ", ".join(f"{count} by `{then}`" for then, count in sorted(after.items()))
    return (
        f"{len(rows)} deployments, each killed at a random time of its course, then: {words}. All ended with the new "
        f"release; {asked:,} requests, {failed} failed."
    )


def _number(fault: str) -> int:
    found = re.match(r"(\d+) ", fault)
    return int(found[1]) if found else 0


TABLE = Table(PAGE, ROWS, ("serves", "exit", "failed", "then", "exit_then"), page)
