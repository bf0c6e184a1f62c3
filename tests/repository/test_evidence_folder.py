from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import EnvironmentLacks
from tritonforge.repository.evidence import EvidenceFolder

KEY = {"artifact": "a" * 64, "platform": "local"}


def test_evidence_is_only_ever_added_and_the_newest_counts(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path)
    files = [folder.append("parity", "net", KEY, ok, {"report": ok}) for ok in (True, None, False)]
    assert len({*files}) == 3
    assert all(file.exists() for file in files)
    latest = folder.latest("parity", "net", KEY)
    assert latest is not None
    assert (latest["ok"], latest["report"], latest["file"]) == (False, False, str(files[-1]))


@pytest.mark.parametrize(
    ("kind", "subject", "key"),
    [
        ("gate", "net", KEY),
        ("parity", "other", KEY),
        ("parity", "net", {**KEY, "platform": "gpu"}),
        ("parity", "net", {}),
    ],
)
def test_evidence_is_about_exactly_one_thing(tmp_path: Path, kind: str, subject: str, key: dict[str, str]) -> None:
    folder = EvidenceFolder(tmp_path)
    folder.append("parity", "net", KEY, True, {})
    assert folder.latest(kind, subject, key) is None


def test_what_is_damaged_does_not_count(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path)
    first = folder.append("parity", "net", KEY, True, {})
    folder.append("parity", "net", KEY, False, {}).write_text("{")
    latest = folder.latest("parity", "net", KEY)
    assert latest is not None and latest["file"] == str(first)


def test_a_place_that_cannot_be_written_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("")
    with pytest.raises(EnvironmentLacks, match="cannot keep the evidence"):
        EvidenceFolder(tmp_path / "evidence").append("parity", "net", KEY, True, {})
