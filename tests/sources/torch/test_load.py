"""Loading PyTorch sources: code of one model alone, nothing run that a file holds, weights that fit."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.errors import CheckFailed

torch = pytest.importorskip("torch")

from tritonforge.sources.torch.load import as_positional, load_module, run_module  # noqa: E402

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
    def forward(self, x):
        return {body}
"""
X = {"x": np.ones((2, 4), np.float32)}


def recipe(kind: str = "torch-module", **given: Any) -> dict[str, Any]:
    empty = {"architecture": None, "weights": None, "state_key": None, "sample": {}, "arguments": {}}
    return {"kind": kind, "module": "net:Net", **empty, "strict": True, "allow_pickle": False, **given}


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "model" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_two_models_may_both_have_a_net(tmp_path: Path) -> None:
    one = written(tmp_path / "one", net=NET.format(body="self.layer(x) * 0 + 1"))
    two = written(tmp_path / "two", net=NET.format(body="self.layer(x) * 0 + 2"))
    before = list(sys.path)
    answers = [float(run_module(load_module(folder, recipe()), recipe(), X)["output"][0, 0]) for folder in (one, two)]
    assert answers == [1.0, 2.0]
    assert sys.path == before
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("line", "body", "module"),
    [
        ("from .other import double", "double(self.layer(x))", "net:Net"),
        ("from .other import double", "double(self.layer(x))", "mine.net:Net"),
        ("from other import double", "double(self.layer(x))", "net:Net"),
        ("", "__import__('importlib').import_module('other').double(self.layer(x))", "net:Net"),
    ],
)
def test_files_beside_it_are_found_when_it_is_loaded_and_when_it_runs(
    tmp_path: Path, line: str, body: str, module: str
) -> None:
    folder = written(tmp_path, net=line + NET.format(body=body), other="def double(x):\n    return x * 2\n")
    made = load_module(folder, recipe(module=module))
    plain = made.layer(torch.ones(2, 4)).detach().numpy()
    np.testing.assert_allclose(run_module(made, recipe(), X)["output"], plain * 2)


def test_a_package_that_hands_on_its_own_class_is_found_before_an_installed_one(tmp_path: Path) -> None:
    package = tmp_path / "code" / "onnxslim"  # a package of that name is installed
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .net import Net\n")
    (package / "net.py").write_text(NET.format(body="self.layer(x) * 0 + 3"))
    (tmp_path / "model").mkdir()
    asked = recipe(module="onnxslim:Net")
    assert float(run_module(load_module(tmp_path, asked), asked, X)["output"][0, 0]) == 3.0


def test_the_code_of_a_model_is_gone_with_the_next(tmp_path: Path) -> None:
    folder = written(tmp_path / "a", net=NET.format(body="self.layer(x)"), other_of_a="")
    load_module(folder, recipe())
    importlib.import_module("other_of_a")
    load_module(written(tmp_path / "b", net=NET.format(body="x")), recipe())
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("other_of_a")


def test_a_loaded_model_hides_no_module_that_another_loader_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_module(written(tmp_path / "a", net=NET.format(body="x")), recipe())
    assert "net" not in sys.modules
    monkeypatch.syspath_prepend(written(tmp_path / "b", net="WHOSE = 'of another'") / "model")
    monkeypatch.delitem(sys.modules, "net", raising=False)
    assert importlib.import_module("net").WHOSE == "of another"
    del sys.modules["net"]


class Runs:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def exported(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    program = torch.export.export(
        torch.nn.Linear(4, 3), (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim("b")},)
    )
    torch.export.save(program, path)
    return path


def changed(path: Path, change: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, change(name, data))


def test_a_program_whose_weights_are_pickles_runs_nothing(tmp_path: Path) -> None:
    path, mark = exported(tmp_path / "model" / "m.pt2"), tmp_path / "ran"

    def change(name: str, data: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            said = json.loads(data)
            for item in said["config"].values():
                item.update(use_pickle=True, tensor_meta=None)
            return json.dumps(said).encode()
        if "/weights/weight_" in name:
            stream = io.BytesIO()
            torch.save(Runs(mark), stream)
            return stream.getvalue()
        return data

    changed(path, change)
    with pytest.raises(CheckFailed, match="pickles of more than tensors"):
        load_module(tmp_path, recipe("torch-export"))
    assert not mark.exists()


@pytest.mark.parametrize("attack", ["eval(chr(49))", "().__class__", "s0.func", "open('x')", "Mod(exec(s0), 2)"])
def test_a_size_that_is_no_arithmetic_is_refused(tmp_path: Path, attack: str) -> None:
    path = exported(tmp_path / "model" / "m.pt2")
    found = []

    def change(name: str, data: bytes) -> bytes:
        text = data.decode() if name.endswith("models/model.json") else ""
        if '"expr_str"' not in text:
            return data
        found.append(name)
        head, _, tail = text.partition('"expr_str": "')
        return (head + f'"expr_str": "{attack}' + tail[tail.index('"') :]).encode()

    changed(path, change)
    assert found
    with pytest.raises(CheckFailed, match="no arithmetic"):
        load_module(tmp_path, recipe("torch-export"))


def test_a_program_of_torch_export_answers_as_its_module(tmp_path: Path) -> None:
    exported(tmp_path / "model" / "m.pt2")
    answer = run_module(load_module(tmp_path, recipe("torch-export")), recipe("torch-export"), X)
    assert answer["output_0" if "output_0" in answer else "output"].shape == (2, 3)


TIED = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.e = torch.nn.Embedding(10, 4)
        self.h = torch.nn.Linear(4, 10, bias=False)
        self.h.weight = self.e.weight
    def forward(self, x):
        return self.h(self.e(x))
"""


def test_a_tied_weight_that_is_kept_once_fits(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    weight = torch.randn(10, 4)
    written(tmp_path, net=TIED)
    save_file({"e.weight": weight}, tmp_path / "w.safetensors")
    made = load_module(tmp_path, recipe(weights="w.safetensors"))
    assert made.h.weight is made.e.weight
    assert torch.equal(made.h.weight, weight)


@pytest.mark.parametrize("given", ["torchscript", "prefix", "wrapped", "shape"])
def test_weights_that_do_not_fit_say_what_they_are(tmp_path: Path, given: str) -> None:
    written(tmp_path, net=NET.format(body="self.layer(x)"))
    good = {"layer.weight": torch.zeros(3, 4), "layer.bias": torch.zeros(3)}
    path = tmp_path / "w.pt"
    if given == "torchscript":
        torch.jit.trace(torch.nn.Linear(4, 3), torch.ones(1, 4)).save(path)
    elif given == "prefix":
        torch.save({f"module.{name}": value for name, value in good.items()}, path)
    elif given == "wrapped":
        torch.save({"state_dict": good, "epoch": 3}, path)
    else:
        torch.save({**good, "layer.weight": torch.zeros(3, 5)}, path)
    with pytest.raises(CheckFailed) as caught:
        load_module(tmp_path, recipe(weights="w.pt"))
    wanted = {
        "torchscript": "a TorchScript module",
        "prefix": "begins with 'module.'",
        "wrapped": "torch.state_key: state_dict",
        "shape": "[3, 5] instead of [3, 4]",
    }
    assert wanted[given] in str(caught.value)


def test_a_pickle_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    torch.save(Runs(tmp_path / "ran"), tmp_path / "model" / "m.pt")
    with pytest.raises(CheckFailed, match="allow_pickle"):
        load_module(tmp_path, recipe("torch-pickle"))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckFailed, match="holds no module"):
        load_module(tmp_path, recipe("torch-pickle", allow_pickle=True))
    assert (tmp_path / "ran").exists()


def test_a_positional_module_has_the_signatures_order(tmp_path: Path) -> None:
    body = "{'b': x, 'a': scale, 'none': None, 'c': (x + scale,)}"
    written(tmp_path, net=NET.format(body=body).replace("(self, x)", "(self, x, flag=False, *, scale)"))
    inputs = (Tensor("scale", "FP32", ("batch", 4)), Tensor("x", "FP32", ("batch", 4)))
    outputs = tuple(Tensor(name, "FP32", ("batch", 4)) for name in ("a", "b", "c_0"))
    how = recipe(sample={"flag": True})
    made = as_positional(load_module(tmp_path, how), how, Signature(inputs, outputs, True))
    a, b, c = made(torch.zeros(1, 4), torch.ones(1, 4))
    assert [float(value.sum()) for value in (a, b, c)] == [0.0, 4.0, 4.0]


@pytest.mark.parametrize("name", ["model/models/model.JSON", "model/models/model.json"])
def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path: Path, name: str) -> None:
    path = exported(tmp_path / "model" / "m.pt2")
    with zipfile.ZipFile(path) as archive:
        top = archive.namelist()[0].partition("/")[0]
        own = next(item for item in archive.namelist() if item.endswith("models/model.json"))
        data = archive.read(own)
    warned = pytest.warns(UserWarning) if name.endswith("json") else contextlib.nullcontext()
    with warned, zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{top}/{name.partition('/')[2]}", data)
    with pytest.raises(CheckFailed, match="two files of one name"):
        load_module(tmp_path, recipe("torch-export"))


@pytest.mark.parametrize("call", ["torch.save(x, PATH)", "x = x + torch.from_file(PATH, True, 4)"])
def test_scripted_code_that_writes_files_is_refused_before_it_is_loaded(tmp_path: Path, call: str) -> None:
    mark = tmp_path / "written"
    code = f"import torch\n\n\ndef forward(x: torch.Tensor) -> torch.Tensor:\n    {call}\n    return x\n"
    file = tmp_path / "code.py"
    file.write_text(code.replace("PATH", repr(str(mark))))
    spec = importlib.util.spec_from_file_location("scripted_code", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "model").mkdir()
    torch.jit.script(module.forward).save(str(tmp_path / "model" / "m.pt"))
    with pytest.raises(CheckFailed, match="reads or writes files"):
        load_module(tmp_path, recipe("torchscript"))
    assert not mark.exists()
