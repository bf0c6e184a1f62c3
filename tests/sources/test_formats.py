from __future__ import annotations

import json
import zipfile
from pathlib import Path

import making_onnx as making
import pytest

from sources.making_torch import Named, Reduced, archive, pickled, safetensors, tensor, weights
from tritonforge.sources.formats import FORMATS, detect


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def keras_archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", "{}")
        made.writestr("metadata.json", "{}")
    return path


def hugging(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


EXPORTED = {"models/model.json": b"{}", "archive_format": b"pt2"}
COMPILED = {"data/aotinductor/model/x.wrapper.so": b"", "archive_format": b"pt2"}
SCRIPTED = {"data.pkl": pickled({}), "constants.pkl": pickled(()), "code/__torch__.py": b""}
LEGACY = pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + pickled({}) + pickled({"w": tensor((2,))})


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda at: making.save(at / "net.onnx", making.batched_add()), "onnx"),
        (lambda at: making.save(at / "net.onnx", making.batched_add()).parent, "onnx"),
        (lambda at: files(at, "model.py") / "model.py", "python"),
        (lambda at: files(at, "model.py", "net.onnx"), "python"),
        (lambda at: archive(at / "m.pt", SCRIPTED), "torchscript"),
        (lambda at: archive(at / "m.pt2", EXPORTED), "torch-export"),
        (lambda at: archive(at / "m.pt2", {**EXPORTED, **COMPILED}), "aoti"),
        (lambda at: weights(at / "w.pt", {"w": tensor((2,))}), "torch-weights"),
        (lambda at: weights(at / "no-suffix", {"w": tensor((2,))}), "torch-weights"),
        (lambda at: weights(at / "o.pt", {"m": Reduced("os", "system", "true")}), "torch-pickle"),
        (lambda at: weights(at / "o.pt", {"m": Named("mine", "Net")}), "torch-pickle"),
        (lambda at: _bytes(at / "w.pth", LEGACY), "torch-weights"),
        (lambda at: _bytes(at / "w.bin", pickled({"w": tensor((2,))})), "torch-weights"),
        (lambda at: _bytes(at / "o.bin", pickled(Named("mine", "Net"))), "torch-pickle"),
        (lambda at: safetensors(at / "w.safetensors", {"w": ("F32", [2], 8)}), "torch-weights"),
        (lambda at: files(at, "saved_model.pb"), "savedmodel"),
        (lambda at: files(at, "saved_model.pb") / "saved_model.pb", "savedmodel"),
        (lambda at: keras_archive(at / "m.keras"), "keras"),
        (lambda at: _bytes(at / "m.h5", b"\x89HDF\r\n\x1a\n"), "keras"),
        (lambda at: files(at, "frozen.pb") / "frozen.pb", "graphdef"),
        (lambda at: files(at, "ck.index", "ck.data-00000-of-00001"), "tf-checkpoint"),
        (lambda at: files(at, "ck.index", "ck.data-00000-of-00001") / "ck.index", "tf-checkpoint"),
        (lambda at: files(at, "ck.index", "ck.data-00000-of-00001") / "ck", "tf-checkpoint"),
        (lambda at: files(at, "checkpoint"), "tf-checkpoint"),
        (lambda at: hugging(at), "huggingface"),
        (lambda at: files(at, "ir.xml", "ir.bin"), "openvino"),
        (lambda at: files(at, "ir.xml", "ir.bin") / "ir.xml", "openvino"),
        (lambda at: at, None),
        (lambda at: at / "missing", None),
        (lambda at: _bytes(at / "empty.pt", b""), None),
        (lambda at: files(at, "notes.txt") / "notes.txt", None),
        (lambda at: files(at, "a.onnx", "b.onnx"), None),
        (lambda at: files(at, "alone.xml") / "alone.xml", None),
        (lambda at: _bytes(at / "half.pt", (weights(at / "w.pt", {}).read_bytes())[:40]), None),
        (lambda at: _bytes(at / "half.bin", pickled({"w": tensor((2,))})[:30]), None),
        (lambda at: _other_zip(at / "other.zip"), None),
    ],
)
def test_a_format_is_told_by_names_heads_and_listings(tmp_path: Path, make: object, kind: str | None) -> None:
    assert callable(make)
    assert detect(make(tmp_path)) == kind
    assert kind is None or kind in FORMATS


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _other_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("readme.txt", "hello")
    return path


def test_what_pytorch_itself_writes(torch_files: Path) -> None:
    assert {file.name: detect(file) for file in torch_files.iterdir() if file.suffix != ".json"} == {
        "state.pt": "torch-weights",
        "checkpoint.pt": "torch-weights",
        "legacy.pth": "torch-weights",
        "object.pt": "torch-pickle",
        "script.pt": "torchscript",
        "export.pt2": "torch-export",
    }


@pytest.mark.slow
def test_what_tensorflow_itself_writes(keras_files: Path) -> None:
    names = ("net.keras", "net.h5", "saved", "ck.index", "frozen.pb")
    kinds = ["keras", "keras", "savedmodel", "tf-checkpoint", "graphdef"]
    assert [detect(keras_files / name) for name in names] == kinds
