from __future__ import annotations

import os
from pathlib import Path

import making_onnx as making
import pytest

from tritonforge.actions.inspect import inspect_model
from tritonforge.errors import CheckFailed, ForgeError, UsageError


def test_facts_answers_and_advice_are_one_object(tmp_path: Path) -> None:
    found = inspect_model(making.save(tmp_path / "net.onnx", making.batched_add()), {"N": 2}).to_json()
    assert (found["format"], found["axes"], found["parameters"]) == ("onnx", {"N": 2}, 4)
    assert found["backends"][0] == {"backend": "onnxruntime", "answer": "yes", "reason": "it runs ONNX as it is"}
    assert {item["target"] for item in found["recommendation"]} >= {"NVIDIA GPU", "Intel CPU", "Jetson DLA", "mobile"}


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("missing.onnx", None, UsageError, "no such file"),
        ("net.onnx", b"", CheckFailed, "net.onnx is empty"),
        ("net.onnx", b"\0\1", CheckFailed, "truncated or not ONNX"),
        ("w.pt", b"", CheckFailed, "w.pt is empty"),
        ("w.pt", b"PK\3\4 and then nothing", CheckFailed, "truncated or no zip"),
        ("w.pt", b"hello", CheckFailed, "no PyTorch file"),
        ("w.pt", b"\x80\x02}q\x00", CheckFailed, "a pickle is truncated"),
        ("w.safetensors", b"\xff" * 20, CheckFailed, "no safetensors"),
        ("m.keras", b"hello", CheckFailed, "no Keras model"),
        ("m.h5", b"", CheckFailed, "m.h5 is empty"),
        ("m.pb", b"hello", CheckFailed, "no TensorFlow graph"),
        ("m.plan", b"engine", CheckFailed, "no model that tritonforge knows"),
        ("notes.txt", b"hello", CheckFailed, "no model that tritonforge knows"),
    ],
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes | None, kind: type[ForgeError], message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=message) as raised:
        inspect_model(path, {})
    assert raised.value.place is not None
    assert raised.value.place.file == path
    assert raised.value.expected and raised.value.found


def test_an_engine_and_an_empty_folder_are_explained(tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_bytes(b"x")
    with pytest.raises(CheckFailed) as raised:
        inspect_model(tmp_path / "m.plan", {})
    assert "inspect the ONNX" in str(raised.value)
    with pytest.raises(CheckFailed, match="the folder holds no model") as raised:
        inspect_model(tmp_path, {})
    assert raised.value.found == "m.plan"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        inspect_model(tmp_path / "pipe.onnx", {})
