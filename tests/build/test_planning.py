from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import making_onnx as making
import pytest

from tritonforge.artifact.digest import FileDigests
from tritonforge.build.graph import Graph
from tritonforge.build.planning import plan_graph
from tritonforge.errors import ForgeError
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.load import load
from tritonforge.spec.lock import Lock
from tritonforge.spec.platform import resolve_platform

Plan = Callable[..., Graph]


@pytest.fixture
def plan(write_spec: Callable[..., Path], tmp_path: Path) -> Plan:
    """The graph of a spec beside which lie ``net.onnx``, ``big/`` (external data), ``model.py`` and ``folder/``."""
    folder = tmp_path / "spec"
    making.save(folder / "net.onnx", making.batched_add())
    making.save_external(folder / "big" / "net.onnx")
    for name in (
        "model.py",
        "folder/model.py",
        "folder/more.txt",
        "labels.txt",
        "two/a.onnx",
        "two/b.onnx",
        "folder2/x",
        "folder2/y",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty").mkdir()

    def make(text: str, platform: str = "local") -> Graph:
        loaded = load(write_spec(text))
        resolver = Resolver(loaded.folder, tmp_path / "packages", FileDigests(tmp_path / "d.sqlite"), Lock())
        return plan_graph(loaded, resolve_platform(platform, loaded.spec.platforms[platform]), resolver)

    return make


def only_error(graph: Graph) -> ForgeError:
    (error,) = graph.errors.values()
    assert graph.models.keys().isdisjoint(graph.errors)
    return error


def test_an_onnx_model_is_imported_answered_and_compared(plan: Plan) -> None:
    graph = plan("models:\n  net: {source: net.onnx, tolerance: {abs: 0.5}}\n")
    assert {name: dict(node.inputs) for name, node in graph.nodes.items()} == {
        "net/import-onnx": {},
        "net/golden": {"model": "net/import-onnx"},
        "net/parity": {"model": "net/import-onnx", "golden": "net/golden"},
    }
    assert graph.nodes["net/parity"].config == {"format": "onnx", "tolerance": {"abs": 0.5}}
    (line,) = graph.models["net"].served
    assert (line.artifact, line.backend, line.parity) == ("net/import-onnx", "onnxruntime", "net/parity")
    assert list(graph.nodes["net/import-onnx"].sources) == ["model.onnx"]


def test_what_is_simplified_is_compared_with_the_answers_of_the_source(plan: Plan) -> None:
    graph = plan("models:\n  net: {source: net.onnx, simplify: true}\n")
    assert dict(graph.nodes["net/parity"].inputs) == {"model": "net/simplify", "golden": "net/golden"}
    assert dict(graph.nodes["net/golden"].inputs) == {"model": "net/import-onnx"}
    assert graph.models["net"].served[0].artifact == "net/simplify"


@pytest.mark.parametrize(
    ("stated", "batches"),
    [
        ("", [1, 3, 8]),
        (", max_batch_size: 0", [1]),
        (", max_batch_size: 2", [1, 2]),
        (", max_batch_size: 64", [1, 3, 64]),
    ],
)
def test_golden_answers_go_up_to_the_largest_batch(plan: Plan, stated: str, batches: list[int]) -> None:
    graph = plan(f"models:\n  net: {{source: net.onnx{stated}}}\n")
    assert graph.nodes["net/golden"].config["batches"] == batches


@pytest.mark.parametrize(("stated", "config"), [("", None), (", generated: true", None), (", generated: false", False)])
def test_cases_are_generated_unless_the_spec_says_that_real_inputs_are_all(
    plan: Plan, stated: str, config: bool | None
) -> None:
    graph = plan(f"models:\n  net: {{source: net.onnx, golden: {{inputs: [net.onnx]{stated}}}}}\n")
    assert graph.nodes["net/golden"].config.get("generated") is config


def test_external_data_and_further_files_come_along(plan: Plan) -> None:
    graph = plan("models:\n  net: {source: big/net.onnx, files: {labels.txt: labels.txt, all: folder}}\n")
    assert sorted(graph.nodes["net/import-onnx"].sources) == [
        "all/model.py",
        "all/more.txt",
        "labels.txt",
        "model.onnx",
        "weights.bin",
    ]


@pytest.mark.parametrize(("source", "files"), [("model.py", ["model.py"]), ("folder", ["model.py", "more.txt"])])
def test_a_python_model_is_a_file_or_a_folder(plan: Plan, source: str, files: list[str]) -> None:
    inputs, outputs = "{X: 'FP32[-1]'}", "{Y: 'FP32[2]'}"
    graph = plan(
        f"models:\n  p:\n    source: {source}\n    max_batch_size: 4\n    inputs: {inputs}\n    outputs: {outputs}\n"
    )
    node = graph.nodes["p/import-python"]
    assert sorted(node.sources) == files
    assert node.config["signature"] == {
        "inputs": [{"name": "X", "datatype": "FP32", "shape": ["batch", "?X.0"]}],
        "outputs": [{"name": "Y", "datatype": "FP32", "shape": ["batch", 2]}],
        "batched": True,
    }


def test_files_of_the_models_folder_are_an_artefact_of_their_own(plan: Plan) -> None:
    graph = plan("models:\n  net: {source: net.onnx, folder_files: {labels.txt: labels.txt}}\n")
    assert graph.models["net"].folder_files == "net/folder-files"
    assert graph.nodes["net/folder-files"].step == "collect"


BAD = {
    "missing source": ("{source: no.onnx}", "missing", "models.net.source"),
    "empty folder": ("{source: empty}", "cannot tell", "models.net.source"),
    "unknown kind": ("{source: labels.txt}", "cannot tell", "models.net.source"),
    "two networks": ("{source: two}", "several ONNX files", "models.net.source"),
    "no model.py": (
        "{source: folder2, format: python, outputs: {Y: 'FP32[1]'}}",
        "has no model.py",
        "models.net.source",
    ),
    "no outputs": ("{source: model.py}", "states its `outputs`", "models.net"),
    "wrong backend": ("{source: net.onnx, backend: python}", "cannot be made", "models.net.backend"),
    "a file over the model": (
        "{source: net.onnx, files: {model.onnx: labels.txt}}",
        "two files want one place",
        "models.net.files.model.onnx",
    ),
    "a file over model.py": (
        "{source: folder, outputs: {Y: 'FP32[1]'}, files: {more.txt: labels.txt}}",
        "two files want one place",
        "models.net.files.more.txt",
    ),
    "a file below model.py": (
        "{source: folder, outputs: {Y: 'FP32[1]'}, files: {model.py/x: labels.txt}}",
        "two files want one place",
        "models.net.files.model.py/x",
    ),
    "a file that leaves": (
        "{source: net.onnx, files: {../x: labels.txt}}",
        "leaves the model's folder",
        "models.net.files.../x",
    ),
    "config.pbtxt": (
        "{source: net.onnx, folder_files: {config.pbtxt: labels.txt}}",
        "belongs to Triton",
        "models.net.folder_files.config.pbtxt",
    ),
    "a version": (
        "{source: net.onnx, folder_files: {1/x: labels.txt}}",
        "belongs to Triton",
        "models.net.folder_files.1/x",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_model_that_cannot_be_planned_is_told_and_leaves_the_others(plan: Plan, name: str) -> None:
    text, message, field = BAD[name]
    graph = plan(f"models:\n  good: {{source: net.onnx}}\n  net: {text}\n")
    error = only_error(graph)
    assert message in error.message
    assert error.place is not None
    assert (error.place.line, error.place.field) == (5, field)
    assert list(graph.models) == ["good"]


def test_a_broken_network_is_left_to_its_step(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "spec" / "net.onnx").write_bytes(b"broken")
    graph = plan("models:\n  net: {source: net.onnx}\n")
    assert graph.errors == {}
    assert "net/import-onnx" in graph.nodes


def test_a_platform_has_its_own_models_batches_and_backends(plan: Plan) -> None:
    text = (
        "platforms: {local: {}, gpu: {triton: '24.05', gpu: sm_80}}\nmodels:\n"
        "  everywhere: {source: net.onnx, platforms: {gpu: {max_batch_size: 2}}}\n"
        "  here: {source: net.onnx, only: [local]}\n"
    )
    here, there = plan(text), plan(text, "gpu")
    assert (list(here.models), list(there.models)) == (["everywhere", "here"], ["everywhere"])
    assert here.nodes["everywhere/golden"].config["batches"] == [1, 3, 8]
    assert there.nodes["everywhere/golden"].config["batches"] == [1, 2]


def test_every_node_stands_after_its_inputs(plan: Plan) -> None:
    graph = plan("models:\n  a: {source: net.onnx, simplify: true}\n  b: {source: big/net.onnx}\n")
    seen: set[str] = set()
    for name, node in graph.nodes.items():
        assert set(node.inputs.values()) <= seen
        seen.add(name)


@pytest.mark.parametrize(
    "files",
    [
        "{m/: folder, m/model.py: labels.txt}",
        "{./model.py: labels.txt}",
        "{a: labels.txt, ./a: model.py}",
        "{a: labels.txt, a/b: model.py}",
        "{a/b: labels.txt, a: model.py}",
    ],
)
def test_two_files_never_want_one_place(plan: Plan, files: str) -> None:
    error = only_error(plan(f"models:\n  p: {{source: model.py, outputs: {{Y: 'FP32[1]'}}, files: {files}}}\n"))
    assert "two files want one place" in error.message
    assert int(error.exit_code) == 2


def test_paths_of_further_files_are_made_plain(plan: Plan) -> None:
    graph = plan(
        "models:\n  p: {source: model.py, outputs: {Y: 'FP32[1]'}, files: {./m//: folder, ./t/../t2: labels.txt}}\n"
    )
    assert "leaves the model's folder" in only_error(graph).message
    graph = plan("models:\n  p: {source: model.py, outputs: {Y: 'FP32[1]'}, files: {./m//: folder, ./t: labels.txt}}\n")
    assert sorted(graph.nodes["p/import-python"].sources) == ["m/model.py", "m/more.txt", "model.py", "t"]
