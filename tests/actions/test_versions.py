"""Several versions in one release, and one of several variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import making_onnx as making
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.workspace import open_workspace
from tritonforge.spec.lock import Choice, read_lock, write_lock

VERSIONS = """\
apiVersion: tritonforge/v1
name: tiny
models:
  net:
    source: net.onnx
    max_batch_size: 4
    versions: {plain: {}, slim: {simplify: true}}
ensembles:
  both: {inputs: [x], outputs: [y], steps: [{model: net, version: STEP}]}
"""
VARIANTS = """\
apiVersion: tritonforge/v1
name: tiny
models:
  net:
    source: net.onnx
    variants: {plain: {max_batch_size: 4}, slim: {simplify: true, max_batch_size: 8}}
"""


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    made = tmp_path / "spec"
    made.mkdir()
    making.save(made / "net.onnx", making.with_dead_weight())
    return made


def built(folder: Path, spec: str) -> PlatformOutcome:
    (folder / "forge.yaml").write_text(spec)
    (outcome,) = build(open_workspace(folder / "forge.yaml"), BuildOptions(jobs=1)).platforms
    return outcome


def config(outcome: PlatformOutcome, name: str) -> Any:
    assert outcome.release is not None
    text = (outcome.release.models_folder / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_every_version_has_its_number_folder_and_entry_under_one_config(folder: Path) -> None:
    outcome = built(folder, VERSIONS.replace("STEP", "plain"))
    assert not outcome.failures and outcome.release is not None
    entries = [entry for entry in outcome.release.models() if entry["folder"] == "net"]
    assert [(entry["version"], entry["label"]) for entry in entries] == [(1, "plain"), (2, "slim")]
    assert len({entry["artifact"] for entry in entries}) == 2
    assert len({entry["config"] for entry in entries}) == 1
    for entry in entries:
        assert (outcome.release.models_folder / "net" / str(entry["version"]) / "model.onnx").is_file()
        assert {path for path in entry["files"] if "/" in path} == {f"{entry['version']}/model.onnx"}
    assert list(config(outcome, "net").version_policy.specific.versions) == [1, 2]
    assert len(list((folder / "build" / "local" / "evidence" / "parity").rglob("*.json"))) == 2


@pytest.mark.parametrize(("step", "number"), [("plain", 1), ("slim", 2), ("latest", -1), ("1", 1)])
def test_an_ensemble_pins_a_version_by_its_name(folder: Path, step: str, number: int) -> None:
    outcome = built(folder, VERSIONS.replace("STEP", step))
    assert config(outcome, "both").ensemble_scheduling.step[0].model_version == number


@pytest.mark.parametrize(
    ("step", "message"),
    [("null", "several versions in this release"), ("slimm", "no version called 'slimm'")],
)
def test_an_ensemble_says_which_version_it_runs(folder: Path, step: str, message: str) -> None:
    (failure,) = built(folder, VERSIONS.replace("STEP", step)).failures
    assert message in failure.error.message
    assert failure.error.place is not None and failure.error.place.line == 9


def test_a_version_that_is_added_later_gets_the_next_number(folder: Path) -> None:
    spec = VERSIONS.replace("STEP", "plain")
    first = built(folder, spec.replace(", slim: {simplify: true}", ""))
    second = built(folder, spec)
    assert first.release is not None and second.release is not None
    assert [entry["version"] for entry in first.release.models() if entry["folder"] == "net"] == [1]
    assert [entry["version"] for entry in second.release.models() if entry["folder"] == "net"] == [1, 2]


def test_versions_that_are_one_and_the_same_are_refused(folder: Path) -> None:
    (failure,) = built(folder, VERSIONS.replace("STEP", "plain").replace("simplify: true", "")).failures
    assert "one and the same artefact" in failure.error.message


def test_the_first_variant_is_served_with_a_word_that_nobody_measured(folder: Path) -> None:
    outcome = built(folder, VARIANTS)
    assert config(outcome, "net").max_batch_size == 4
    assert any("tritonforge choose net" in warning for warning in outcome.warnings)
    assert {node for node in outcome.results if "parity" in node} == {"net/parity", "net/parity.slim"}


def test_the_lock_chooses_and_the_spec_has_the_last_word(folder: Path) -> None:
    built(folder, VARIANTS)
    lock = read_lock(folder / "forge.lock")
    lock.choices["local"] = {"net": Choice("slim", {"p50_ms": 1.5})}
    write_lock(folder / "forge.lock", lock)
    chosen = built(folder, VARIANTS)
    assert config(chosen, "net").max_batch_size == 8
    assert not chosen.warnings
    assert read_lock(folder / "forge.lock").choices["local"]["net"].figures == {"p50_ms": 1.5}
    pinned = built(folder, VARIANTS + "    platforms: {local: {variant: plain}}\n")
    assert config(pinned, "net").max_batch_size == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("    versions: {a: {}}\n", "either `variants`"),
        ("    platforms: {local: {variant: nosuch}}\n", "no variant 'nosuch'"),
    ],
)
def test_what_does_not_go_together_is_told(folder: Path, more: str, message: str) -> None:
    from tritonforge.errors import ForgeError

    try:
        outcome = built(folder, VARIANTS + more)
    except ForgeError as error:
        assert message in error.message
    else:
        assert message in outcome.failures[0].error.message


def test_an_older_version_that_is_added_in_front_is_refused(folder: Path) -> None:
    spec = VERSIONS.replace("STEP", "plain")
    built(folder, spec.replace(", slim: {simplify: true}", ""))
    (failure,) = built(
        folder, spec.replace("{plain: {}, slim: {simplify: true}}", "{slim: {simplify: true}, plain: {}}")
    ).failures
    assert "another order than their numbers" in failure.error.message


def test_a_choice_that_is_gone_or_changed_is_told(folder: Path) -> None:
    built(folder, VARIANTS)
    lock = read_lock(folder / "forge.lock")
    lock.choices["local"] = {"net": Choice("slim", {"artifact": "0" * 12})}
    write_lock(folder / "forge.lock", lock)
    assert any("another artefact" in text for text in built(folder, VARIANTS).warnings)
    without = built(folder, VARIANTS.replace(", slim: {simplify: true, max_batch_size: 8}", ""))
    assert any("'slim', which is gone" in text for text in without.warnings)


def test_a_pin_on_a_model_without_variants_is_refused(folder: Path) -> None:
    spec = (
        "apiVersion: tritonforge/v1\nname: tiny\nmodels:\n  net: {source: net.onnx, platforms: {local: {variant: a}}}\n"
    )
    (failure,) = built(folder, spec).failures
    assert "no `variants`" in failure.error.message


def test_a_variant_may_leave_out_what_the_model_says(folder: Path) -> None:
    from tritonforge.spec.conversion.effective import conversions
    from tritonforge.spec.models import ModelSpec

    model = ModelSpec.model_validate(
        {"source": "x.onnx", "quantize": {"mode": "dynamic"}, "variants": {"a": {"quantize": None}, "b": {}}}
    )
    a, b = conversions(model)
    assert a.quantize is None
    assert b.quantize is not None
