"""From a PyTorch source to ONNX by the real steps: import, reference answers, export, comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from steps.conftest import Run, golden_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed

pytest.importorskip("torch")

NETS = """
import torch
from torch import nn

class Mlp(nn.Module):
    def __init__(self, act="relu"):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.act = getattr(torch, act)
    def forward(self, x):
        return self.b(self.act(self.a(x)))

class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    def forward(self, image):
        y = self.body(image)
        return {"map": y, "mean": y.mean((2, 3))}

class Two(nn.Module):
    def forward(self, ids, mask):
        return ids.float() * mask, mask.sum(1)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(10, 4)
        self.h = nn.Linear(4, 10, bias=False)
        self.h.weight = self.e.weight
    def forward(self, ids):
        return self.h(self.e(ids))

class Half(Mlp):
    def __init__(self):
        super().__init__()
        self.to(torch.bfloat16)
    def forward(self, x):
        return super().forward(x.bfloat16()).float()

class Table(nn.Module):
    def forward(self, x):
        return x.t() @ x

class Steps(nn.Module):
    def forward(self, x):
        if 5 < x.shape[1] < 10:
            return x * 100
        return x

class InPlace(nn.Module):
    def forward(self, x):
        x += 1
        return x * 2

class Mixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0)

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return -x
        return x
"""

CASES: Mapping[str, tuple[str, dict[str, str], bool | None, list[str]]] = {
    "an MLP": ("Mlp", {"x": "FP32[4]"}, None, ["output"]),
    "a CNN with BatchNorm and a dict": ("Cnn", {"image": "FP32[3,height,width]"}, None, ["map", "mean"]),
    "two inputs on one dynamic axis": ("Two", {"ids": "INT64[n]", "mask": "FP32[n]"}, None, ["output_0", "output_1"]),
    "an embedding with tied weights": ("Tied", {"ids": "INT64[n]"}, None, ["output"]),
    "no batch": ("Table", {"x": "FP32[rows,4]"}, False, ["output"]),
}


def imported(run: Run, tmp_path: Path, name: str, inputs: Mapping[str, str], batched: bool | None = None) -> Artifact:
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    recipe = {
        "kind": "torch-module", "architecture": None, "module": f"nets:{name}", "arguments": {}, "weights": None,
        "state_key": None, "strict": True, "allow_pickle": False, "sample": {},
    }  # fmt: skip
    config = {
        "recipe": recipe,
        "inputs": {key: {"type": value, "optional": False, "ragged": False} for key, value in inputs.items()},
        "outputs": {}, "batched": batched, "axes": {}, "ranges": {},
    }  # fmt: skip
    return run("import-torch", config, sources={"model/nets.py": path})


def export(run: Run, source: Artifact, exporter: str = "dynamo", opset: int | None = None) -> Artifact:
    return run("torch-to-onnx", {"opset": opset, "exporters": [exporter]}, inputs={"model": source})


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("case", CASES)
def test_the_export_answers_as_the_source_at_every_size(run: Run, tmp_path: Path, case: str, exporter: str) -> None:
    name, inputs, batched, outputs = CASES[case]
    source = imported(run, tmp_path, name, inputs, batched)
    assert source.signature is not None
    assert [tensor.name for tensor in source.signature.outputs] == outputs
    assert source.signature.batched is (batched is None)
    golden = run("golden", golden_config(format="torch"), inputs={"model": source})
    made = export(run, source, exporter)
    assert made.signature == source.signature
    assert exporter in str(made.metadata["made_by"])
    parity = run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert parity.metadata["comparisons"] == len(golden.metadata["cases"]) * len(outputs)


def test_bfloat16_is_exported_as_it_is_and_onnx_runtime_says_what_it_lacks(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "Half", {"x": "FP32[4]"})
    golden = run("golden", golden_config(format="torch"), inputs={"model": source})
    made = export(run, source)
    with pytest.raises(CheckFailed, match=r"NOT_IMPLEMENTED.*Gemm"):
        run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_same_source_gives_the_same_bytes(run: Run, tmp_path: Path, exporter: str) -> None:
    source = imported(run, tmp_path, "Cnn", {"image": "FP32[3,height,width]"})
    assert export(run, source, exporter).digest == export(run, source, exporter).digest


def test_nothing_of_this_machine_is_in_the_file(run: Run, tmp_path: Path, store: LocalStore) -> None:
    for exporter in ("dynamo", "torchscript"):
        made = export(run, imported(run, tmp_path, "Mlp", {"x": "FP32[4]"}), exporter)
        data = store.blob(made.files["model.onnx"].sha256).read_bytes()
        assert b"nets.py" not in data
        assert b"/" + str(tmp_path).encode().split(b"/")[1] + b"/" not in data


def test_another_opset_than_was_asked_for_is_a_failure(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "Mlp", {"x": "FP32[4]"})
    assert export(run, source, "torchscript", 17).metadata["opset"] == 17
    with pytest.raises(CheckFailed) as caught:
        export(run, source, "torchscript", 99)
    assert caught.value.hint is not None


def test_a_branch_on_data_names_its_line_and_the_ways_out(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "Branch", {"x": "FP32[4]"})
    with pytest.raises(CheckFailed) as caught:
        export(run, source)
    line = 1 + NETS.splitlines().index("        if x.sum() > 0:")
    assert f"nets.py:{line}" in str(caught.value)
    assert "backend: python" in str(caught.value)


def test_inputs_that_are_not_stated_are_shown_as_they_would_be(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r'inputs: \{ids: "FP32\[…\]", mask: "FP32\[…\]"\}'):
        imported(run, tmp_path, "Two", {})


def test_inputs_that_do_not_fit_name_the_arguments_and_the_shapes(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        imported(run, tmp_path, "Mlp", {"x": "FP32[5]"})
    assert "forward(x)" in str(caught.value)
    assert "x float32[2, 5]" in str(caught.value)


def test_a_trace_that_would_keep_one_branch_is_refused(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "Branch", {"x": "FP32[4]"})
    with pytest.raises(CheckFailed) as caught:
        export(run, source, "torchscript")
    assert "trace" in str(caught.value.found)


def test_a_graph_that_stands_for_some_sizes_only_is_refused(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "Steps", {"x": "FP32[length]"})
    with pytest.raises(CheckFailed) as caught:
        export(run, source)
    assert "other sizes of 'length'" in str(caught.value.found)


def test_a_module_that_changes_its_input_keeps_its_reference(run: Run, tmp_path: Path) -> None:
    source = imported(run, tmp_path, "InPlace", {"x": "FP32[4]"})
    golden = run("golden", golden_config(format="torch"), inputs={"model": source})
    run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": export(run, source), "golden": golden})


@pytest.mark.parametrize(("name", "batched"), [("Mlp", True), ("Mixing", False)])
def test_rows_that_depend_on_each_other_are_no_batch(run: Run, tmp_path: Path, name: str, batched: bool) -> None:
    source = imported(run, tmp_path, name, {"x": "FP32[4]"})
    assert source.signature is not None
    assert source.signature.batched is batched
    assert bool(source.metadata["notes"]) is (not batched) or name == "Mlp"
