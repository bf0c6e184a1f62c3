"""``deploy`` and ``rollback`` on the command line: what they print, and what is refused before anything is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tritonforge.actions import deploy as action
from tritonforge.actions.deploy import Deployment
from tritonforge.actions.deploy_plan import ModelChange, Plan
from tritonforge.cli.main import cli, run

NEW, OLD = "a" * 64, "b" * 64
TARGETS = """\
models: {net: {source: net.onnx}}
targets:
  here: {kind: embedded}
  there: {kind: embedded, ports: {http: 9000, grpc: 9001, metrics: 9002}}
"""
PLAN = Plan((ModelChange("net", "changed", ("version 1 → 2", "config.pbtxt")),), ("+ --log-verbose=1",), 1_500_000, 3)


@pytest.fixture
def spec(write_spec: Callable[..., Path]) -> str:
    return str(write_spec(TARGETS))


def invoke(monkeypatch: pytest.MonkeyPatch, done: Deployment, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run a command whose action is played; what it printed, and what the action was asked."""
    asked: dict[str, Any] = {}

    def play(workspace: object, name: str, **options: Any) -> Deployment:
        asked.update(options, target=name)
        return done

    monkeypatch.setattr(action, "deploy", play)
    monkeypatch.setattr(action, "rollback", play)
    ran = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.output, asked


def test_what_was_deployed_is_one_line(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    done = Deployment("here", "deployed", NEW, OLD, None, "r", "green", 4.25, ["it was interrupted, and undone"])
    said, asked = invoke(monkeypatch, done, "deploy", "here", "--spec", spec, "--release", "aaa", "--resume")
    assert "here: release aaaaaaaaaaaa serves in green, instead of bbbbbbbbbbbb (4.2 s)" in said
    assert "it was interrupted, and undone" in said
    assert (asked["target"], asked["reference"], asked["resume"], asked["dry_run"]) == ("here", "aaa", True, False)


def test_the_first_release_replaces_nothing(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    said, _ = invoke(
        monkeypatch, Deployment("here", "deployed", NEW, None, slot="blue"), "deploy", "here", "--spec", spec
    )
    assert said.endswith("here: release aaaaaaaaaaaa serves in blue (0.0 s)\n")


def test_what_serves_already(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    done = Deployment("here", "unchanged", NEW, NEW, slot="blue")
    said, _ = invoke(monkeypatch, done, "deploy", "here", "--spec", spec)
    assert "here: release aaaaaaaaaaaa serves already, in blue" in said


def test_a_dry_run_shows_every_difference(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    said, asked = invoke(
        monkeypatch, Deployment("here", "planned", NEW, OLD, PLAN), "deploy", "here", "--spec", spec, "--dry-run"
    )
    assert asked["dry_run"]
    for words in (
        "here: bbbbbbbbbbbb → aaaaaaaaaaaa",
        "version 1 → 2, config.pbtxt",
        "server: + --log-verbose=1",
        "1.5 MB in 3 files would travel",
    ):
        assert words in said


def test_a_dry_run_without_a_difference(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    done = Deployment("here", "planned", NEW, None, Plan((), ()))
    said, _ = invoke(monkeypatch, done, "rollback", "here", "--spec", spec, "--dry-run")
    assert "here: nothing → aaaaaaaaaaaa" in said
    assert "nothing would change" in said


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    done = Deployment("here", "planned", NEW, OLD, PLAN, notes=["a note"])
    said, _ = invoke(monkeypatch, done, "deploy", "here", "--spec", spec, "--json")
    answer = json.loads(said)
    assert (answer["outcome"], answer["release"], answer["previous"]) == ("planned", NEW, OLD)
    assert answer["plan"]["models"] == [{"folder": "net", "kind": "changed", "what": ["version 1 → 2", "config.pbtxt"]}]
    assert (answer["plan"]["bytes"], answer["notes"]) == (1_500_000, ["a note"])


def test_rollback_to_a_release(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    _, asked = invoke(monkeypatch, Deployment("here", "deployed", OLD, NEW), "rollback", "here", "bbb", "--spec", spec)
    assert (asked["target"], asked["to"]) == ("here", "bbb")


@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_a_target_that_the_spec_has_not(command: str, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run([command, "hree", "--spec", spec])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "the spec has no target 'hree'" in said
    assert "did you mean 'there' or 'here'?" in said or "did you mean 'here' or 'there'?" in said


def test_a_spec_without_targets(write_spec: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(["deploy", "here", "--spec", str(write_spec("models: {net: {source: net.onnx}}\n"))])
    assert left.value.code == 2
    assert "declare it under `targets:`" in capsys.readouterr().err
