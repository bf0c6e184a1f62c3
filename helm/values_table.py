"""Writes the table of values in the chart's README from the comments of values.yaml.

    python helm/values_table.py            # writes it
    python helm/values_table.py --check    # exits 1 if it is not what it would write

A comment that begins with ``# --`` is the description of the key below it; a key with a description is a row, and so
stands for all keys below it.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parent / "tritonforge"
BEGIN: Final = "<!-- values: written by helm/values_table.py -->"
END: Final = "<!-- end of values -->"


def rows(text: str) -> list[tuple[str, Any, str]]:
    """(key, default, description) of each key that has a description, in the order of the file."""
    values = yaml.safe_load(text)
    found: list[tuple[str, Any, str]] = []
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# --"):
            said = [stripped[4:].strip()]
        elif stripped.startswith("#"):
            if said:
                said.append(stripped[1:].strip())
        elif match := re.match(r"( *)([A-Za-z][A-Za-z0-9]*):", line):
            indent = len(match.group(1))
            path = [*(item for item in path if item[0] < indent), (indent, match.group(2))]
            if said:
                names = [name for _, name in path]
                found.append((".".join(names), _at(values, names), " ".join(said)))
            said = []
        else:
            said = []
    return found


def _at(values: Any, names: list[str]) -> Any:
    for name in names:
        values = values[name]
    return values


def table(text: str) -> str:
    """The table in Markdown."""
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for name, default, description in rows(text):
        words = description.replace("|", "\\|")
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| `{name}` | `{shown}` | {words} |")
    return "\n".join(lines)


def updated(readme: str, text: str) -> str:
    """The README with the table that belongs to values.yaml's text."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(text)}\n{END}{tail}"


def main() -> int:
    """Write the table, or tell whether it is current."""
    readme = CHART / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = updated(old, (CHART / "values.yaml").read_text(encoding="utf-8"))
    if "--check" in sys.argv[1:]:
        return int(old != new)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
