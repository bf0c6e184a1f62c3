"""What the document of a release says, and that missing or damaged evidence is said to be missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.store import KeyRecord
from tritonforge.report import collect
from tritonforge.repository.release import Release

from .making import WHEN, document, entry, gate_document, gate_evidence, known, parity, put_release, step
from .making import level as measured
from .making import validation as validated

LOADED = {"validation": {"ok": True, "at": WHEN, **validated(compared=0)}}


def test_a_release_with_all_evidence_is_proven(release: Release) -> None:
    report = collect(release, known(release))
    assert report.summary.state == "proven"
    assert [row.folder for row in report.models] == ["both", "net", "split"]
    assert {row.proof for row in report.models} == {"answers"}
    assert [gate.verdict for gate in report.gates] == ["pass"]
    assert report.made_current == WHEN
    assert report.models[1].description == "The network."
    assert report.models[1].inputs == ("ids: INT64[batch,length]",)
    assert report.models[1].size == 2058
    assert len(report.validation) == 3
    assert len(report.parity) == 3


def test_the_json_has_a_schema_and_is_plain_and_strict(release: Release) -> None:
    data = collect(release, known(release)).to_json()
    assert data["schema"] == 1
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["gates"][0]["evidence"]["levels"][0]["concurrency"] == 1
    assert data["ensembles"][0]["wires"][0]["targets"] == [{"step": 0, "name": "TEXT"}]


def test_a_figure_that_is_no_number_becomes_null(release: Release) -> None:
    evidence = {"net": {"parity": {"ok": True, "at": WHEN, **parity(float("nan"), max_rel=float("inf"))}}}
    row = collect(release, known(release, evidence=evidence)).to_json()["parity"][0]
    assert (row["max_abs"], row["max_rel"]) == (None, None)


@pytest.mark.parametrize(
    ("replaced", "state"),
    [
        ({"evidence": {}}, "unproven"),
        ({"evidence": {"net": {"validation": {"ok": True, "at": WHEN, **validated()}}}}, "partly"),
        ({"evidence": {"net": {"validation": {"ok": False, "at": WHEN, **validated(ok=False)}}}}, "failed"),
        ({"evidence": {"net": {"parity": {"ok": False, "at": WHEN, **parity(1.0, ok=False)}}}}, "failed"),
        ({"evidence": dict.fromkeys(("both", "net", "split"), LOADED)}, "partly"),
        ({"gates": {}}, "partly"),
        ({"gates": {}, "asked_gates": {}}, "proven"),
    ],
)
def test_the_worst_evidence_decides_and_missing_evidence_is_never_good(
    release: Release, replaced: dict[str, Any], state: str
) -> None:
    assert collect(release, known(release, **replaced)).summary.state == state


@pytest.mark.parametrize(("ok", "verdict", "state"), [(False, "fail", "failed"), (None, "inconclusive", "partly")])
def test_a_gate_that_did_not_pass_shows(release: Release, ok: bool | None, verdict: str, state: str) -> None:
    gate = {"ok": ok, "at": WHEN, **gate_document(gate_evidence(release.digest))}
    report = collect(release, known(release, gates={"fast": gate}))
    assert (report.gates[0].verdict, report.summary.state) == (verdict, state)


@pytest.mark.parametrize("evidence", [{}, {"evidence": {}}, {"evidence": {"schema": "tritonforge/gate-evidence/v1"}}])
def test_damaged_gate_evidence_is_inconclusive_with_its_reason(release: Release, evidence: dict[str, Any]) -> None:
    gate = collect(release, known(release, gates={"fast": {"ok": True, "at": WHEN, **evidence}})).gates[0]
    assert gate.verdict == "inconclusive"
    assert gate.problem


def test_a_model_that_only_loaded_is_not_said_to_be_compared(release: Release) -> None:
    evidence = {"net": {"validation": {"ok": True, "at": WHEN, **validated(compared=0)}}}
    assert collect(release, known(release, evidence=evidence)).models[1].proof == "loaded"


def test_parity_has_the_absolute_tolerance_of_the_precision(release: Release) -> None:
    assert {row.bound for row in collect(release, known(release)).parity} == {1e-4}


def test_a_level_without_windows_is_reported_all_the_same(release: Release) -> None:
    gate = gate_document(gate_evidence(release.digest, measured(1, windows=0)))
    assert collect(release, known(release, gates={"fast": {"ok": True, "at": WHEN, **gate}})).gates[0].evidence


def test_a_step_carries_what_the_store_knows_of_its_run(release: Release) -> None:
    provenance = {"started": WHEN, "seconds": 2.5, "machine": "x86_64", "python": "3.11.7"}
    record = KeyRecord("ee" * 32, {"processor": "avx2"}, provenance)
    rows = {row.step: row for row in collect(release, known(release, records={"2" * 64: record})).steps}
    assert (rows["import-onnx"].seconds, rows["import-onnx"].artifact) == (2.5, "ee" * 32)
    assert rows["parity"].started is None


def test_a_release_without_its_config_says_that_it_is_not_whole(release: Release) -> None:
    (release.models_folder / "net" / "config.pbtxt").unlink()
    report = collect(release, known(release))
    assert report.models[1].config_text is None
    assert any("net" in note for note in report.notes)


def test_a_folder_outside_of_the_release_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text("secret")
    content = document(models=[entry("../../../../", [], [], "")])
    root = tmp_path / "build" / "local"
    made = Release(root / "releases" / ("0" * 64), content)
    assert collect(made, known(made)).models[0].config_text is None


def _pair(tmp_path: Path, **replaced: Any) -> tuple[Release, Release, list[dict[str, str]]]:
    old = put_release(tmp_path, document())
    content = document(**replaced)
    new = put_release(tmp_path, content)
    return old, new, json.loads((tmp_path / "history.json").read_text())


def test_changes_against_the_previous_release_are_named(tmp_path: Path) -> None:
    models = document()["models"]
    models[1] = {**models[1], "artifact": "ff" * 32, "version": 2, "config": "00" * 32}
    models[1]["made_from"] = [
        step("import-onnx", "9", {"net.onnx": "dd" * 32}, onnx="1.18"),
        step("parity", "8", onnxruntime="1.20"),
        step("simplify", "7"),
    ]
    del models[2]
    old, new, history = _pair(tmp_path, models=models, server={"arguments": []})
    report = collect(new, known(new, history=history, previous=old))
    assert report.changes.previous == old.digest
    assert report.changes.lines == (
        "net: version 1 → 2, another artefact",
        "net: config.pbtxt changed",
        "split is gone (it had version 2)",
        "the server's arguments changed",
    )
    rows = {row.step: row for row in report.steps}
    assert rows["import-onnx"].status == "changed"
    assert rows["import-onnx"].reasons == (
        "source net.onnx changed: bbbbbbbb → dddddddd",
        "tool onnx changed: 1.17 → 1.18",
    )
    assert rows["parity"].reasons == ("its configuration, or a step before it, changed",)
    assert rows["simplify"].status == "new"


def test_what_did_not_change_is_said_to_be_unchanged(tmp_path: Path) -> None:
    old, new, history = _pair(tmp_path, name="renamed")
    report = collect(new, known(new, history=history, previous=old))
    assert {row.status for row in report.steps} == {"unchanged"}
    assert report.changes.lines == ("nothing that is served changed",)


def test_a_pruned_previous_release_is_not_guessed_at(tmp_path: Path) -> None:
    _, new, history = _pair(tmp_path, name="renamed")
    report = collect(new, known(new, history=history, previous=None))
    assert {row.status for row in report.steps} == {"unknown"}
    assert "no longer kept" in report.changes.lines[0]


def test_after_going_back_the_previous_one_is_what_was_current_just_before(tmp_path: Path) -> None:
    old, new, history = _pair(tmp_path, name="renamed")
    history.append({"release": old.digest, "at": WHEN})
    assert collect(old, known(old, history=history, previous=new)).changes.previous == new.digest
