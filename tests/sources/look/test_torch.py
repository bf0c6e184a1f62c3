from __future__ import annotations

import json
from pathlib import Path

import pytest

from sources.making_torch import Reduced, archive, pickled, safetensors, tensor, weights
from tritonforge.errors import CheckFailed, UsageError
from tritonforge.sources.formats import detect
from tritonforge.sources.look import look
from tritonforge.sources.look.facts import ModelFacts


def seen(path: Path, **axes: int) -> ModelFacts:
    kind = detect(path)
    assert kind is not None
    return look(kind, path, axes)


def shown(found: ModelFacts) -> list[str]:
    return [str(item) for item in (*(found.inputs or ()), *(found.outputs or ()))]


@pytest.mark.parametrize("name", ["state.pt", "legacy.pth", "object.pt", "script.pt", "export.pt2", "checkpoint.pt"])
def test_parameters_are_those_that_pytorch_counts(torch_files: Path, name: str) -> None:
    wanted = json.loads((torch_files / "made.json").read_text())["parameters"]
    assert seen(torch_files / name).parameters == wanted


def test_an_exported_program_tells_its_signature(torch_files: Path) -> None:
    found = seen(torch_files / "export.pt2")
    axis = next(iter(found.sizes))
    assert shown(found)[:2] == [f"image: FP32[{axis},3,8,8]", "scale: FP32[1]"]
    assert (found.outputs or ())[0].shape == (axis, 5)
    assert found.operators["aten.conv2d.default"] == 1
    assert seen(torch_files / "export.pt2", **{axis: 4}).sizes == {axis: 4}


def test_torchscript_tells_names_and_calls(torch_files: Path) -> None:
    found = seen(torch_files / "script.pt")
    assert shown(found) == ["image: Tensor[…]", "scale: Tensor[…]", "0: Tensor[…]"]
    assert found.operators["conv2d"] >= 1
    with pytest.raises(UsageError, match="no dynamic axis 'batch'"):
        seen(torch_files / "script.pt", batch=2)


def test_an_optimizer_and_tied_weights_are_not_counted(tmp_path: Path) -> None:
    state = {"model": {"e": tensor((3, 2)), "h": tensor((3, 2))}, "optimizer": {"avg": tensor((9,), "1")}}
    found = seen(weights(tmp_path / "w.pt", state))
    assert found.parameters == 6
    assert found.memory is not None
    assert found.memory.weights == 24
    assert len(found.notes) == 2


def test_a_pickle_is_told_by_what_it_would_import(tmp_path: Path) -> None:
    found = seen(weights(tmp_path / "o.pt", {"m": Reduced("os", "system", "true"), "w": tensor((3,))}))
    assert (found.format, found.parameters) == ("torch-pickle", 3)
    assert "os.system" in found.globals
    assert "would import os.system" in found.notes[0]


def test_a_compiled_package_tells_its_processor(tmp_path: Path) -> None:
    said = json.dumps({"AOTI_DEVICE_KEY": "cpu", "AOTI_CPU_ISA": "AVX512", "AOTI_COMPUTE_CAPABILITY": ""}).encode()
    members = {"data/aotinductor/model/m.wrapper.so": bytes(100), "data/aotinductor/model/m_metadata.json": said}
    assert seen(archive(tmp_path / "m.pt2", members)).versions == {"device_key": "cpu", "cpu_isa": "AVX512"}


@pytest.mark.parametrize(
    "program",
    [b"", b"[]", b"{}", b'{"graph_module": {"graph": {"nodes": [1]}}}', b"[" * 100_000, b'{"graph_module": null}'],
)
def test_a_malformed_program_is_refused(tmp_path: Path, program: bytes) -> None:
    path = archive(tmp_path / "m.pt2", {"models/model.json": program, "archive_format": b"pt2"})
    with pytest.raises(CheckFailed):
        seen(path)


def test_a_script_without_code_tells_no_signature(tmp_path: Path) -> None:
    members = {"data.pkl": pickled({"w": tensor((2,))}), "constants.pkl": pickled(()), "code/x.py": b"class\n(("}
    found = seen(archive(tmp_path / "m.pt", members))
    assert (found.inputs, found.parameters) == (None, 2)


def hugging(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"], **config}))
    return folder


def test_a_hugging_face_folder_is_told_by_headers(tmp_path: Path) -> None:
    safetensors(hugging(tmp_path) / "model.safetensors", {"a": ("F16", [2, 3], 12)})
    found = seen(tmp_path)
    assert (found.parameters, found.weight_types, found.problems) == (6, {"FP16": 6}, ())
    assert found.versions["architectures"] == "BertModel"
    assert any("tokenizer" in note for note in found.notes)


def test_missing_shards_foreign_code_and_foreign_pickles_are_said(tmp_path: Path) -> None:
    weights(hugging(tmp_path, auto_map={"AutoModel": "x.Y"}) / "pytorch_model.bin", {"m": Reduced("os", "system", "1")})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    found = seen(tmp_path)
    assert any("os.system" in problem for problem in found.problems)
    assert any("model-2.safetensors is missing" in problem for problem in found.problems)
    assert any("auto_map" in note for note in found.notes)
