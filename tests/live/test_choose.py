"""Variants measured on the embedded Triton."""

from __future__ import annotations

from pathlib import Path

import making_onnx as making
import pytest

from tritonforge.actions.build import BuildOptions, build
from tritonforge.actions.choose import ChooseOptions, choose
from tritonforge.actions.live import ServerChoice
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import UsageError
from tritonforge.spec.lock import read_lock

pytestmark = pytest.mark.live

SPEC = """\
apiVersion: tritonforge/v1
name: tiny
models:
  net:
    source: net.onnx
    variants:
      impossible: {tolerance: {abs: 0, cosine: 1}, onnxruntime: {optimize: basic}, quantize: {mode: dynamic}}
      plain: {}
      slim: {simplify: true}
  other: {source: net.onnx}
  pinned: {source: net.onnx, variants: {a: {}, b: {simplify: true}}, platforms: {local: {variant: b}}}
"""
QUICK = ChooseOptions(rounds=3, interval_ms=50)


@pytest.fixture
def spec(runtime: object, tmp_path: Path) -> Path:
    folder = tmp_path / "spec"
    folder.mkdir()
    making.save(folder / "net.onnx", making.with_dead_weight())
    (folder / "forge.yaml").write_text(SPEC)
    return folder / "forge.yaml"


def test_what_passes_parity_is_measured_and_the_choice_is_written(spec: Path) -> None:
    workspace = open_workspace(spec)
    (chosen,) = choose(workspace, platform_name=None, names=(), choice=ServerChoice(), options=QUICK)
    by_label = {item.label: item for item in chosen.candidates}
    assert by_label["impossible"].excluded is not None
    assert not by_label["impossible"].p50_ms
    for label in ("plain", "slim"):
        assert len(by_label[label].p50_ms) == len(by_label[label].throughput) == 3
        assert all(value > 0 for value in by_label[label].p50_ms)
    written = read_lock(workspace.lock_path).choices["local"]["net"]
    assert written.variant == chosen.ranking.best in ("plain", "slim")
    assert written.figures["variants"]["impossible"]["excluded"] == by_label["impossible"].excluded
    assert "stand-in" in written.figures["server"]
    (outcome,) = build(open_workspace(spec), BuildOptions(jobs=1)).platforms
    assert outcome.release is not None, outcome.failures
    assert outcome.release.served("net")["label"] == written.variant


@pytest.mark.slow
def test_a_dry_run_leaves_the_lock_as_it_is(spec: Path) -> None:
    options = ChooseOptions(rounds=3, interval_ms=50, dry_run=True)
    (chosen,) = choose(open_workspace(spec), platform_name=None, names=("net",), choice=ServerChoice(), options=options)
    assert not chosen.written
    assert not spec.with_suffix(".lock").exists()


@pytest.mark.parametrize(
    ("names", "choice", "message"),
    [
        (("nett",), ServerChoice(), "no model 'nett'"),
        (("other",), ServerChoice(), "no variants to choose from"),
        ((), ServerChoice(server="http://127.0.0.1:1"), "on a server that loads them"),
        (("pinned",), ServerChoice(), "the spec itself says"),
    ],
)
def test_wrong_questions_are_told(spec: Path, names: tuple[str, ...], choice: ServerChoice, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(open_workspace(spec), platform_name=None, names=names, choice=choice, options=QUICK)
