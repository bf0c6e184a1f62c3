"""The page ``docs/rollout-faults.md``: what became of each fault. The tests that cause them hold the page to it."""

from __future__ import annotations

import collections
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "rollout-faults.md"
ROWS = Path(__file__).with_name("rollout_faults.json")
"""What the page is made of."""
UPDATE = "TRITONFORGE_UPDATE_TABLE"

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
    row = Row(**{**asdict(row), "said": plain(row.said)})
    key = f"{row.group}: {row.fault}"
    if os.environ.get(UPDATE):
        with _alone():
            rows = {**read_rows(), key: asdict(row)}
            ROWS.write_text(json.dumps(rows, ensure_ascii=False, sort_keys=True, indent=1) + "\n")
            PAGE.write_text(page(rows))
        return
    rows = read_rows()
    assert key in rows, f"docs/{PAGE.name} lacks '{key}': run `make faults`"
    known = {name: rows[key][name] for name in ("serves", "exit", "failed", "then", "exit_then")}
    found = {name: getattr(row, name) for name in known}
    assert found == known, f"docs/{PAGE.name} is out of date at '{key}': run `make faults`"


@contextmanager
def _alone() -> Iterator[None]:
    """Several test processes may write the page."""
    fd = os.open(PAGE.parent, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read_rows() -> dict[str, dict[str, Any]]:
    """The rows of the page, by group and fault."""
    if not ROWS.exists():
        return {}
    rows: dict[str, dict[str, Any]] = json.loads(ROWS.read_text())
    return rows


def plain(said: str) -> str:
    """Words without what differs in every run."""
    said = re.sub(r"\b[0-9a-f]{10,64}\b", "…", said)
    said = re.sub(r"process \d+", "process …", said)
    said = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "…", said)
    said = re.sub(r"\S+@\S+", "somebody", said)
    return re.sub(r"(/[\w.+-]+){2,}", "…", said).replace("|", "/").replace("\n", " ").replace("-->", "")


def page(rows: dict[str, dict[str, Any]]) -> str:
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
