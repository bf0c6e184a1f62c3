"""What is under a name is what the name says, also when somebody edits, damages or kills in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import making_onnx as making
import onnx
import pytest
from onnx import TensorProto, helper

from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.cache import verify_cache
from tritonforge.actions.live import ServerChoice, same_server
from tritonforge.actions.workspace import Workspace, open_workspace
from tritonforge.artifact.digest import digest_file
from tritonforge.build.executor import LocalExecutor, Task
from tritonforge.errors import CheckFailed
from tritonforge.sources.resolve import SourceFile

HEAD = "apiVersion: tritonforge/v1\nname: tiny\n"
NET = "models:\n  net: {source: net.onnx, max_batch_size: 4}\n"


def site(folder: Path, spec: str = NET) -> Workspace:
    folder.mkdir(exist_ok=True)
    if not (folder / "net.onnx").exists():
        making.save(folder / "net.onnx", making.batched_add())
    (folder / "forge.yaml").write_text(HEAD + spec)
    return open_workspace(folder / "forge.yaml")


def built(workspace: Workspace, *, force: bool = False) -> PlatformOutcome:
    outcome = build(workspace, BuildOptions(force=("*",) if force else ())).platforms[0]
    assert not outcome.failures, outcome.failures
    return outcome


def test_a_source_that_changes_after_its_key_was_made_is_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "data.txt"
    file.write_text("now")
    store = site(tmp_path / "s").store.open()
    executor = LocalExecutor(1)
    task = Task(
        node="m/collect",
        step="collect",
        config={},
        inputs={},
        sources={"data.txt": SourceFile(file, "0" * 64, 3).for_worker()},
        key="1" * 64,
        store=str(store.root),
        log=str(tmp_path / "log"),
    )
    try:
        with pytest.raises(CheckFailed, match="changed while it was built") as error:
            executor.submit(task).result(60)
    finally:
        executor.close()
    assert error.value.place is not None
    assert error.value.place.file == file
    assert store.lookup("1" * 64) is None


def test_force_replaces_a_release_whose_bytes_were_changed(home: Path, tmp_path: Path) -> None:
    workspace = site(tmp_path / "s")
    release = built(workspace).release
    assert release is not None
    file = release.models_folder / "net" / "1" / "model.onnx"
    wanted = digest_file(file)
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(20)
        stream.write(b"\xff")
    assert [item.path for item in verify_cache(workspace.store)] == ["model.onnx"]
    built(workspace, force=True)
    assert digest_file(file) == wanted
    assert verify_cache(workspace.store) == []


def test_a_release_that_a_kill_kept_out_of_the_history_is_not_lost(home: Path, tmp_path: Path) -> None:
    workspace = site(tmp_path / "s")
    built(workspace)
    other = NET.replace("4}", "5}")
    site(tmp_path / "s", other)
    code = f"from tritonforge.cli.main import run; run(['build', '--spec', {str(tmp_path / 's')!r}])"
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITONFORGE_FAULT": "current.flipped"}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    folder = workspace.releases(workspace.platform())
    flipped = folder.current()
    assert flipped is not None
    built(site(tmp_path / "s", NET.replace("4}", "6}")))
    assert flipped.folder.is_dir()
    assert flipped.digest in [entry["release"] for entry in folder.history()]


def test_a_damaged_history_loses_no_release(home: Path, tmp_path: Path) -> None:
    for size in (4, 5, 6):
        workspace = site(tmp_path / "s", NET.replace("4}", f"{size}}}"))
        built(workspace)
    folder = workspace.releases(workspace.platform())
    kept = {path.name for path in folder.releases.iterdir()}
    (folder.root / "history.json").write_text('[{"release": "')
    built(site(tmp_path / "s", NET.replace("4}", "7}")))
    assert kept < {path.name for path in folder.releases.iterdir()}


def test_a_template_that_a_template_includes_is_noticed(home: Path, tmp_path: Path) -> None:
    spec = "models:\n  net: {source: net.onnx, max_batch_size: 4, template: styles/mine.pbtxt.j2}\n"
    workspace = site(tmp_path / "s", spec)
    for name, text in {
        "styles/mine.pbtxt.j2": '{% extends "config/base.pbtxt.j2" %}{% block scheduling %}'
        '{% include "shared/extra.j2" %}{% endblock %}',
        "shared/extra.j2": "dynamic_batching { max_queue_delay_microseconds: 100 }",
    }.items():
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_text(text)
    built(workspace)
    assert not built(workspace).new
    (tmp_path / "s" / "shared/extra.j2").write_text("dynamic_batching { max_queue_delay_microseconds: 9999 }")
    after = built(workspace)
    assert after.new
    assert after.release is not None
    assert after.release.config("net").dynamic_batching.max_queue_delay_microseconds == 9999


def test_parity_under_another_tolerance_is_new_evidence(home: Path, tmp_path: Path) -> None:
    for tolerance in ("0.5", "0.5", "0.0001"):
        spec = f"models:\n  net: {{source: net.onnx, max_batch_size: 4, tolerance: {{abs: {tolerance}}}}}\n"
        workspace = site(tmp_path / "s", spec)
        built(workspace)
    files = sorted((workspace.build_root / "local" / "evidence" / "parity").rglob("*.json"))
    assert [json.loads(file.read_text())["report"]["tolerance"]["abs"] for file in files] == [0.5, 0.0001]


def test_external_data_that_leads_out_of_its_folder_is_refused(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    weight = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n", 1])], [value("y", 1, ["n", 1])], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "net.onnx")
    (tmp_path / "secret").write_bytes(b"\0\0\0\0")
    (folder / "w.bin").symlink_to(tmp_path / "secret")
    outcome = build(site(folder), BuildOptions()).platforms[0]
    assert outcome.release is None
    assert [str(item.error.exit_code.value) for item in outcome.failures] == ["2"]
    assert "leads out" in outcome.failures[0].error.message


def test_a_step_that_hangs_is_ended(home: Path, tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [
            helper.make_tensor("n", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("t", TensorProto.BOOL, [], [True]),
        ],
    )
    (tmp_path / "s").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "s" / "net.onnx")
    clock = time.monotonic()
    outcome = build(site(tmp_path / "s", "models:\n  net: {source: net.onnx, timeout_s: 3}\n"), BuildOptions())
    assert time.monotonic() - clock < 60
    error = outcome.failures[0].error
    assert "longer than 3 s" in error.message
    assert error.hint is not None
    assert "timeout_s" in error.hint


def test_evidence_of_another_server_is_not_reused() -> None:
    assert same_server({"identity": "embedded"}, ServerChoice())
    assert not same_server({"identity": "embedded"}, ServerChoice(container="image"))
    assert same_server({"identity": "image"}, ServerChoice(container="image"))
    assert not same_server({"identity": None}, ServerChoice(server="http://127.0.0.1:8000"))
