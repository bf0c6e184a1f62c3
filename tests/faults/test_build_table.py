"""The page of faults is made of its rows, and each row says that what must hold did hold."""

from __future__ import annotations

import pytest

from faults.build_table import GROUPS, TABLE, page, read_rows
from faults.test_build_points import times


def test_the_page_is_what_its_rows_give() -> None:
    assert TABLE.page.read_text() == page(read_rows())


def test_every_next_build_was_good_and_current_was_seen_whole() -> None:
    rows = read_rows()
    assert {row["group"] for row in rows.values()} == set(GROUPS)
    assert {row["exit_then"] for row in rows.values()} == {0}
    assert all(row["looks"] > 0 for row in rows.values())


@pytest.mark.exhaustive
def test_every_passage_of_every_build_is_a_row_and_so_are_a_hundred_random_kills() -> None:
    rows = read_rows()
    wanted = {f"{group}: {build} {number} {point}" for build, number, point in times() for group in ("kill", "full")}
    assert {key for key, row in rows.items() if row["group"] in ("kill", "full")} == wanted
    assert sum(row["group"] == "random" and "SIG" not in row["fault"] for row in rows.values()) == 100
