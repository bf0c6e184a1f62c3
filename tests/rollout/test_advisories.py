"""Known vulnerabilities: the data is sound, and only what a server is exposed to is told."""

from __future__ import annotations

import re

import pytest

from tritonforge.errors import CheckFailed, UsageError
from tritonforge.rollout.advisories import advisories, fixed_in, known_issues, require_minimum, summary


def cves(triton: str, **how: object) -> set[str]:
    return {item.cve for item in known_issues(triton, **how)}  # type: ignore[arg-type]


def test_the_data_is_sound() -> None:
    found = advisories()
    assert len({item.cve for item in found}) == len(found)
    for item in found:
        assert re.fullmatch(r"CVE-20\d\d-\d{4,6}", item.cve)
        assert re.fullmatch(r"\d\d\.(0[1-9]|1[0-2])", item.fixed)
        assert item.since is None or item.since < item.fixed
        bands = {"critical": (9.0, 10.0), "high": (7.0, 8.9), "medium": (4.0, 6.9), "low": (0.1, 3.9)}
        low, high = bands[item.severity]
        assert low <= item.score <= high, f"{item.cve}: CVSS calls {item.score} something else than {item.severity}"
        assert item.source.startswith("https://nvidia.custhelp.com/app/answers/detail/a_id/")
        assert "20" + item.fixed.replace(".", "-") <= item.date, f"{item.cve}: the fix comes before the bulletin"


@pytest.mark.parametrize(
    ("cve", "last_with_it", "first_without"),
    [
        ("CVE-2024-0087", "24.03", "24.04"),
        ("CVE-2024-0116", "24.08", "24.09"),
        ("CVE-2025-23310", "25.06", "25.07"),
        ("CVE-2025-23334", "25.06", "25.07"),
        ("CVE-2025-23316", "25.07", "25.08"),
        ("CVE-2026-24207", "26.02", "26.03"),
        ("CVE-2026-16497", "26.06", "26.07"),
    ],
)
def test_a_release_has_it_until_the_fix(cve: str, last_with_it: str, first_without: str) -> None:
    assert cve in cves(last_with_it)
    assert cve not in cves(first_without)


def test_a_release_from_before_it_came_in_is_spared() -> None:
    assert "CVE-2024-0087" in cves("22.09")
    assert "CVE-2024-0087" not in cves("22.08")


def test_model_control_matters() -> None:
    assert "CVE-2023-31036" not in cves("23.08", model_control="none"), "the bulletin says so"
    assert "CVE-2023-31036" in cves("23.08", model_control="explicit")
    assert "CVE-2023-31036" not in cves("23.11", model_control="explicit")


def test_a_backend_matters_only_where_it_is_used_or_can_be() -> None:
    assert "CVE-2025-23319" not in cves("24.10", backends=["onnxruntime"])
    assert "CVE-2025-23319" in cves("24.10", backends=["onnxruntime", "python"])
    assert "CVE-2025-23319" in cves("24.10", backends=["onnxruntime"], model_control="explicit"), "it can be loaded"
    assert "CVE-2025-23319" in cves("24.10"), "which are used is not known"


def test_an_endpoint_matters_only_where_it_is_open() -> None:
    assert "CVE-2025-23311" not in cves("24.10", http=False)
    assert "CVE-2025-23311" in cves("24.10")
    assert "CVE-2025-33238" not in cves("24.10")
    assert "CVE-2025-33238" in cves("24.10", others=["sagemaker"])
    assert "CVE-2026-47487" not in cves("24.10"), "the MLflow plugin is no part of a server"


def test_the_worst_comes_first_and_the_fix_of_all_is_named() -> None:
    found = known_issues("25.06")
    assert found == sorted(found, key=lambda item: -item.score)
    assert found[0].severity == "critical"
    assert fixed_in(found) == "26.07"
    text = summary(found, "25.06")
    assert text is not None
    assert text.endswith("26.07 has none of them")
    assert found[0].cve in text


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert known_issues("26.07", model_control="explicit", others=["sagemaker", "mlflow"]) == []
    assert fixed_in([]) is None
    assert summary([], "26.07") is None


@pytest.mark.parametrize("text", ["", "24", "24.1", "2.51.0", "latest", "24.10-py3"])
def test_what_is_no_container_release_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no container release"):
        known_issues(text)


def test_a_target_refuses_a_triton_below_its_minimum() -> None:
    require_minimum("24.10", None, target="edge")
    require_minimum("24.10", "24.10", target="edge")
    require_minimum("25.01", "24.10", target="edge")
    with pytest.raises(CheckFailed, match="takes no Triton that old") as caught:
        require_minimum("24.09", "24.10", target="edge")
    assert caught.value.expected == "24.10 or newer (`minimum_triton`)"
