"""``tritonforge report``: where it writes, what it prints, and that it can be run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tritonforge.actions.report import write_report
from tritonforge.actions.workspace import open_workspace
from tritonforge.cli.main import cli
from tritonforge.errors import UsageError
from tritonforge.repository.evidence import EvidenceFolder
from tritonforge.repository.release import Release

from .making import append_all, document, put_release

SPEC = """
models:
  split: {source: split.py, inputs: {TEXT: "BYTES[1]"}, outputs: {ids: "INT64[-1]"}, description: Splits.}
gates:
  fast: {model: both, slo: {p95_ms: 50}}
ensembles:
  both: {inputs: [TEXT], outputs: [ids], steps: [{model: split}]}
"""


@pytest.fixture
def spec(home: Path, write_spec: Callable[..., Path]) -> Path:
    return write_spec(SPEC)


@pytest.fixture
def platform(spec: Path) -> Path:
    return spec.parent / "build" / "local"


@pytest.fixture
def built(platform: Path) -> Release:
    release = put_release(platform, document())
    append_all(EvidenceFolder(platform / "evidence"), release, "local")
    return release


def test_the_report_stands_beside_the_releases_and_under_a_stable_name(
    spec: Path, platform: Path, built: Release
) -> None:
    before = sorted(built.folder.rglob("*"))
    paths = write_report(open_workspace(spec))
    assert paths.html == platform / "reports" / f"{built.digest}.html"
    assert paths.stable == platform / "report.html"
    assert paths.stable.read_bytes() == paths.html.read_bytes()
    data = json.loads((platform / "report.json").read_text())
    assert (data["schema"], data["release"]) == (1, built.digest)
    assert data["summary"]["state"] == "proven"
    assert data["models"][2]["description"] == "Splits."
    assert sorted(built.folder.rglob("*")) == before


def test_running_it_again_gives_equal_bytes(spec: Path, built: Release) -> None:
    first = write_report(open_workspace(spec)).html.read_bytes()
    assert write_report(open_workspace(spec)).html.read_bytes() == first


def test_an_older_release_leaves_the_stable_page_alone(spec: Path, platform: Path, built: Release) -> None:
    put_release(platform, document(name="newer"))
    write_report(open_workspace(spec))
    stable = (platform / "report.html").read_bytes()
    old = write_report(open_workspace(spec), reference=built.digest[:10])
    assert old.stable is None
    assert old.html.exists()
    assert (platform / "report.html").read_bytes() == stable


def test_half_a_character_is_written_as_its_escape(spec: Path, platform: Path) -> None:
    release = put_release(platform, document(name="half \ud800"))
    paths = write_report(open_workspace(spec))
    assert json.loads(paths.json.read_text())["name"] == release.document["name"]
    assert "half \\ud800" in paths.html.read_text()


def test_without_a_release_it_says_what_to_do(spec: Path) -> None:
    with pytest.raises(UsageError, match="no release yet"):
        write_report(open_workspace(spec))


def test_the_command_prints_a_summary_and_where_the_page_is(spec: Path, platform: Path, built: Release) -> None:
    result = CliRunner().invoke(cli, ["report", "--spec", str(spec)])
    assert result.exit_code == 0, result.output
    for word in ("Proven", "both", "parity: 2 of 2", "fast", str(platform / "report.html")):
        assert word in result.stdout


def test_the_page_can_be_written_elsewhere(spec: Path, built: Release, tmp_path: Path) -> None:
    target = tmp_path / "out" / "page.html"
    result = CliRunner().invoke(cli, ["report", built.digest[:8], "--spec", str(spec), "--html", str(target)])
    assert result.exit_code == 0, result.output
    assert target.read_text().lstrip().startswith("<!doctype html>")
    assert str(target) in result.stdout


def test_json_is_the_one_object_on_stdout(spec: Path, built: Release) -> None:
    result = CliRunner().invoke(cli, ["report", "--spec", str(spec), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["release"] == built.digest
