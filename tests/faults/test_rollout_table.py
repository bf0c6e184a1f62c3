"""The page of faults is made of its rows, and each row says that what must hold did hold."""

from __future__ import annotations

from faults.rollout_table import GROUPS, PAGE, page, read_rows


def test_the_page_is_what_its_rows_give() -> None:
    assert PAGE.read_text() == page(read_rows())


def test_no_request_failed_but_where_what_clients_talk_to_was_away() -> None:
    rows = read_rows()
    assert {row["group"] for row in rows.values()} == set(GROUPS)
    failing = {name for name, row in rows.items() if row["failed"]}
    assert all("proxy" in name or "both servers" in name for name in failing), failing
    assert all(row["requests"] > 0 for row in rows.values())
    assert all(row["exit_then"] in (0, None) for row in rows.values())
