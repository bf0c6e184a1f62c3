"""Tiny releases with evidence, made by hand: two models, an ensemble of them, and one gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge.artifact.digest import digest_bytes
from tritonforge.measure import (
    Condition,
    Estimate,
    GateEvidence,
    GateResult,
    Hardware,
    Level,
    Outcome,
    Verdict,
    Window,
)
from tritonforge.report import Known
from tritonforge.repository.evidence import EvidenceFolder
from tritonforge.repository.release import Release, read_release

WHEN = "2026-01-02T03:04:05Z"
SERVER = {"kind": "embedded", "title": "the embedded Triton 2.51.0", "version": "2.51.0"}
HARDWARE = Hardware("A Processor", "x86_64", 2, 4, 4, None, 8 << 30, "6.1", 0.1, None)

ENSEMBLE = """
name: "both"
platform: "ensemble"
max_batch_size: 8
input { name: "TEXT" data_type: TYPE_STRING dims: [1] }
output { name: "SCORES" data_type: TYPE_FP32 dims: [-1] }
output { name: "RULE" data_type: TYPE_STRING dims: [1] }
ensemble_scheduling {
  step {
    model_name: "split" model_version: 2
    input_map { key: "TEXT" value: "TEXT" }
    output_map { key: "ids" value: "token_ids" }
    output_map { key: "rule" value: "RULE" }
  }
  step {
    model_name: "net" model_version: 1
    input_map { key: "ids" value: "token_ids" }
    output_map { key: "scores" value: "SCORES" }
  }
}
"""


def tensor(name: str, datatype: str, *dims: int | str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": ["batch", *dims]}


def entry(folder: str, inputs: list[Any], outputs: list[Any], config: str, **more: Any) -> dict[str, Any]:
    """One model of ``release.json``."""
    return {
        "name": folder,
        "folder": folder,
        "kind": "model",
        "format": "python",
        "backend": "python",
        "version": 1,
        "artifact": digest_bytes(folder.encode()),
        "config": digest_bytes(config.encode()),
        "signature": {"inputs": inputs, "outputs": outputs, "batched": True},
        "max_batch_size": 8,
        "decoupled": False,
        "files": {"1/model.py": {"sha256": "ab" * 32, "size": 2048}, "config.pbtxt": {"sha256": "cd" * 32, "size": 10}},
        "made_from": [],
        **more,
    }


def step(name: str, key: str, sources: Mapping[str, str] | None = None, **tools: str) -> dict[str, Any]:
    return {"step": name, "key": key * 64, "sources": dict(sources or {}), "tools": tools}


def document(**replaced: Any) -> dict[str, Any]:
    """``release.json`` of ``split`` → ``net`` as the ensemble ``both``."""
    text, ids = tensor("TEXT", "BYTES", 1), tensor("ids", "INT64", "length")
    rule, scores = tensor("rule", "BYTES", 1), tensor("scores", "FP32", "length")
    made = [step("import-python", "1", {"model.py": "aa" * 32})]
    net_made = [step("import-onnx", "2", {"net.onnx": "bb" * 32}, onnx="1.17"), step("parity", "3", onnxruntime="1.20")]
    both = ([tensor("TEXT", "BYTES", 1)], [tensor("SCORES", "FP32", "length"), tensor("RULE", "BYTES", 1)])
    return {
        "schema": 1,
        "name": "tiny",
        "platform": {
            "name": "local",
            "triton": "24.10",
            "embedded": True,
            "processor": "x86_64",
            "gpu": None,
            "gpus": 0,
            "tensorrt": None,
            "jetpack": None,
        },
        "server": {"arguments": ["--exit-timeout-secs=10"]},
        "models": [
            entry("both", *both, ENSEMBLE, kind="ensemble", backend="ensemble", format="ensemble"),
            entry("net", [ids], [scores], 'name: "net"', format="onnx", backend="onnxruntime", made_from=net_made),
            entry("split", [text], [ids, rule], 'name: "split"', version=2, made_from=made),
        ],
        "golden": {},
        **replaced,
    }


def put_release(root: Path, content: Mapping[str, Any], *, current: bool = True, at: str = WHEN) -> Release:
    """Write a release below ``root`` (a platform's folder), and note it in the history."""
    text = json.dumps(content, indent=1, sort_keys=True).encode()
    folder = root / "releases" / digest_bytes(text)
    for item in content["models"]:
        config = folder / "models" / item["folder"] / "config.pbtxt"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(ENSEMBLE if item["kind"] == "ensemble" else f'name: "{item["folder"]}"\n', encoding="utf-8")
    (folder / "release.json").write_bytes(text)
    history = root / "history.json"
    entries = json.loads(history.read_text()) if history.exists() else []
    history.write_text(json.dumps([*entries, {"release": folder.name, "at": at}]))
    if current:
        (root / "current").unlink(missing_ok=True)
        (root / "current").symlink_to(Path("releases") / folder.name)
    return read_release(folder)


def validation(ok: bool = True, compared: int = 4, **result: Any) -> dict[str, Any]:
    """The document of one model's ``validation``."""
    return {
        "server": SERVER,
        "hardware": HARDWARE.to_json(),
        "result": {
            "ok": ok,
            "cases": 6,
            "compared": compared,
            "max_abs": 1e-7,
            "problems": [],
            "failures": [],
            "note": None,
            "seconds": 1.0,
            "instances_overridden": False,
            **result,
        },
    }


def parity(*gaps: float, **row: Any) -> dict[str, Any]:
    """The document of a model's ``parity`` with one case for each gap."""
    rows = [
        {
            "case": f"case{index}",
            "output": "scores",
            "ok": True,
            "max_abs": gap,
            "max_rel": gap,
            "cosine": 1.0,
            "agreement": 1.0,
            "reason": None,
            **row,
        }
        for index, gap in enumerate(gaps)
    ]
    tolerance = {"FP32": {"abs": 1e-4, "rel": 1e-3}, "FP16": {"abs": 1e-2, "rel": 1e-2}}
    return {"report": {"schema": 1, "reference": "the source, offline", "tolerance": tolerance, "rows": rows}}


def level(concurrency: int, p50_us: float = 1000.0, windows: int = 3, **more: Any) -> Level:
    """A measured level whose percentiles are multiples of ``p50_us``."""

    def about(value: float) -> Estimate:
        return Estimate(value, value * 0.9, value * 1.1, windows)

    each = tuple(
        Window(
            index * 10**9,
            (index + 1) * 10**9,
            100,
            100.0,
            p50_us,
            p50_us,
            p50_us * 2,
            p50_us * (3 + index),
            p50_us * 4,
        )
        for index in range(windows)
    )
    figures: dict[str, Any] = {
        "requests": 300,
        "duration_s": 3.0,
        "throughput": about(100.0 * concurrency),
        "p50_us": about(p50_us),
        "p90_us": about(p50_us * 2),
        "p95_us": about(p50_us * 3),
        "p99_us": about(p50_us * 4),
        "windows": each,
        **more,
    }
    return Level(concurrency, 1, Outcome.MEASURED, **figures)


def gate_evidence(release: str, *levels: Level, **more: Any) -> GateEvidence:
    """A gate on ``both`` that every level passes."""
    levels = levels or (level(1), level(4, 3000.0))
    condition = Condition("p95", 3.0, 2.7, 3.3, 50.0, "ms", Verdict.PASS, "the whole interval meets the bound")
    values: dict[str, Any] = {
        "model": "both",
        "release": release,
        "platform": "local",
        "server_version": "2.51.0",
        "perf_analyzer_version": "2.51.0",
        "hardware": HARDWARE,
        "settings": {"protocol": "grpc"},
        "levels": levels,
        "results": tuple(GateResult(item.concurrency, (condition,), Verdict.PASS) for item in levels),
        "started": WHEN,
        "ended": WHEN,
        "slo": {"p50_ms": 20, "p95_ms": 50, "throughput_min": 10},
        **more,
    }
    return GateEvidence(**values)


def gate_document(evidence: GateEvidence) -> dict[str, Any]:
    return {"gate": "x", "server": SERVER, "evidence": evidence.to_json()}


def known(release: Release, **replaced: Any) -> Known:
    """All evidence that a good release has."""
    good = {"kind": "validation", "ok": True, "at": WHEN, **validation()}
    evidence: dict[str, dict[str, Any]] = {item["folder"]: {"validation": good} for item in release.models()}
    if "net" in evidence:
        evidence["net"]["parity"] = {"kind": "parity", "ok": True, "at": WHEN, **parity(0.0, 3e-9, 2e-5)}
    gate = {"kind": "gate", "ok": True, "at": WHEN, **gate_document(gate_evidence(release.digest))}
    values: dict[str, Any] = {
        "history": [{"release": release.digest, "at": WHEN}],
        "current": True,
        "proofs": {item["folder"]: f"{SERVER['title']}, 4 answers compared" for item in release.models()},
        "evidence": evidence,
        "gates": {"fast": gate},
        "asked_gates": {"fast": "both"},
        "description": "A tiny repository.",
        "descriptions": {"net": "The network."},
        **replaced,
    }
    return Known(**values)


def append_all(folder: EvidenceFolder, release: Release, platform: str) -> None:
    """The same evidence on disk, keyed as the commands key it."""
    for item in release.models():
        key = {"artifact": item["artifact"], "platform": platform}
        folder.append("validation", item["folder"], {**key, "config": item["config"]}, True, validation())
        if item["folder"] == "net":
            folder.append("parity", item["name"], key, True, parity(0.0, 3e-9))
    key = {"release": release.digest, "platform": platform}
    folder.append("gate", "fast", key, True, gate_document(gate_evidence(release.digest)))
