"""Bad inputs that only a server shows: each is one clear error with its exit code, and harms no other model."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest
from cli.commands import Workshop, errors_said
from cli.test_bad_input import read_only
from making_onnx import batched_add, save

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

RAISES = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("the vocabulary has 7 words, 8 are needed")

    def execute(self, requests):
        return []
"""
WRONG = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        raise RuntimeError("no answer today")
"""
SPEC = """\
models:
  good: {source: good.onnx, max_batch_size: 4}
  nowhere: {source: good.onnx, max_batch_size: 4}
  raises: {source: raises.py, inputs: {A: "FP32[1]"}, outputs: {B: "FP32[1]"}, max_batch_size: 2}
  refuses: {source: refuses.py, inputs: {A: "FP32[1]"}, outputs: {B: "FP32[1]"}, max_batch_size: 2,
            golden: {ranges: {A: {low: 0, high: 1}}}}
ensembles:
  over: {inputs: [x], outputs: [y], steps: [{model: good}]}
"""


@pytest.fixture(scope="module")
def bad(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A release whose faults no build can see."""
    made = Workshop.make(tmp_path_factory.mktemp("bad") / "w", runtime.root.parent)
    save(made.folder / "good.onnx", batched_add())
    (made.folder / "raises.py").write_text(RAISES)
    (made.folder / "refuses.py").write_text(WRONG)
    made.write(SPEC)
    assert made.build()["new"] is True
    # A spec can only ask for backends that it can build for. A server may still lack one: this config asks for such.
    config = made.folder / "build/local/current/models/nowhere/config.pbtxt"
    config.chmod(0o644)
    config.write_text(config.read_text().replace('backend: "onnxruntime"', 'backend: "nosuch"'))
    return made


@pytest.fixture(scope="module")
def validated(bad: Workshop) -> tuple[int, dict[str, dict], str]:
    done = bad.run("validate", "--json")
    return done.code, {model["folder"]: model for model in done.json["models"]}, done.err


def test_every_bad_model_is_named_and_the_good_ones_are_proven_all_the_same(
    validated: tuple[int, dict[str, dict], str],
) -> None:
    code, models, said = validated
    assert code == 1
    assert {name: model["ok"] for name, model in models.items()} == {
        "good": True,
        "over": True,
        "nowhere": False,
        "raises": False,
        "refuses": False,
    }
    assert "Traceback (most recent" not in said


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nowhere", ["nosuch", "this server has no backend 'nosuch'; it has:", "onnxruntime"]),
        ("raises", ["ValueError: the vocabulary has 7 words, 8 are needed", "model.py(6): initialize"]),
        ("refuses", ["no answer today"]),
    ],
)
def test_the_real_reason_is_shown(validated: tuple[int, dict[str, dict], str], model: str, says: list[str]) -> None:
    _, models, said = validated
    shown = " ".join([*models[model]["problems"], *(str(item["reason"]) for item in models[model]["failures"])])
    for text in says:
        assert text in shown
        assert text in said


def test_serve_names_the_models_that_do_not_load_and_leaves_nothing_running(bad: Workshop) -> None:
    done = bad.run("serve", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    assert done.code == 1
    assert errors_said(done.err) == 1
    assert "Traceback (most recent" not in done.err
    for text in ("nowhere", "nosuch", "raises", "the vocabulary has 7 words", "hint: "):
        assert text in done.err
    assert not (bad.folder / "build/local/serving.json").exists()
    assert servers_of(bad) == []


def test_a_port_in_use_names_its_holder(bad: Workshop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = bad.run("serve", "--http-port", str(port), "--grpc-port", "0", "--metrics-port", "0")
    assert done.code == 3
    assert errors_said(done.err) == 1
    for text in (f"port {port} is in use by", f"(process {psutil.Process().pid})", "hint: "):
        assert text in done.err
    assert servers_of(bad) == []


@pytest.mark.parametrize(
    "words", [["validate"], ["infer", "good", "[[1,2,3,4]]"], ["gate"]], ids=lambda words: words[0]
)
def test_no_server_at_a_url_is_the_environments_fault(bad: Workshop, words: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = bad.run(*words, "--server", url)
    if words == ["gate"]:
        assert done.code == 2
        assert "no gates" in done.err
    else:
        assert done.code == 3
        assert url.removeprefix("http://") in done.err
    assert errors_said(done.err) == 1


def test_a_model_with_a_missing_requirement_is_refused_before_a_server_starts(bad: Workshop, tmp_path: Path) -> None:
    other = bad.copy(tmp_path / "copy")
    text = SPEC.replace("raises.py, ", "raises.py, requirements: [no-such-package==9], ")
    other.write(text)
    other.build()
    done = other.run("validate")
    assert done.code == 3
    assert errors_said(done.err) == 1
    for part in ("'raises' needs no-such-package==9", "it is not installed", "pip install 'no-such-package==9'"):
        assert part in done.err


def test_a_read_only_build_folder_is_named(bad: Workshop, tmp_path: Path) -> None:
    other = bad.copy(tmp_path / "copy")
    other.write("models:\n  good: {source: good.onnx, max_batch_size: 4}\n")
    other.build()
    with read_only(other.folder / "build"):
        refused = other.run("validate")
        answer = other.run("infer", "good", "[1, 2, 3, 4]")
    for done in (refused, answer):
        assert done.code == 3
        assert errors_said(done.err) == 1
        assert "read-only" in done.err
        assert str(other.folder / "build") in done.err
    assert servers_of(other) == []


def servers_of(workshop: Workshop) -> list[str]:
    """Programs that run on the workshop's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(workshop.folder) in line and process.info["name"] != "pytest":
            found.append(line)
    return found
