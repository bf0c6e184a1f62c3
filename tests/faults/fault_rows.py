"""Rows of a page about faults: kept in a JSON file, of which the page is made, and held to what the tests find."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UPDATE = "TRITONFORGE_UPDATE_TABLE"
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """``held`` names the columns that must come out the same every time; ``render`` makes the page of all rows."""

    page: Path
    rows: Path
    held: tuple[str, ...]
    render: Callable[[Rows], str]

    def keep(self, row: dict[str, Any]) -> None:
        """Hold the page to this row, or write it there when the table is made anew."""
        row = {**row, "said": plain(row["said"])}
        key = f"{row['group']}: {row['fault']}"
        if os.environ.get(UPDATE):
            with self._alone():
                rows = {**self.read(), key: row}
                self.rows.write_text(json.dumps(rows, ensure_ascii=False, sort_keys=True, indent=1) + "\n")
                self.page.write_text(self.render(rows))
            return
        rows = self.read()
        assert key in rows, f"docs/{self.page.name} lacks '{key}': run `make faults`"
        known = {name: rows[key][name] for name in self.held}
        found = {name: row[name] for name in self.held}
        assert found == known, f"docs/{self.page.name} is out of date at '{key}': run `make faults`"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Several test processes may write the page."""
        fd = os.open(self.page.parent, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def read(self) -> Rows:
        """The rows of the page, by group and fault."""
        if not self.rows.exists():
            return {}
        rows: Rows = json.loads(self.rows.read_text())
        return rows


def plain(said: str) -> str:
    """Words without what differs in every run."""
    said = re.sub(r"\b[0-9a-f]{10,64}\b", "…", said)
    said = re.sub(r"process \d+", "process …", said)
    said = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "…", said)
    said = re.sub(r"\S+@\S+", "somebody", said)
    return re.sub(r"(/[\w.+-]+){2,}", "…", said).replace("|", "/").replace("\n", " ").replace("-->", "")
