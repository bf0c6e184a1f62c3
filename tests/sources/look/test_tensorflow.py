from __future__ import annotations

import json
from pathlib import Path

import pytest

from tritonforge.errors import CheckFailed, UsageError
from tritonforge.sources.formats import detect
from tritonforge.sources.look import look
from tritonforge.sources.look.facts import ModelFacts
from tritonforge.sources.look.tensor_bundle import variables


def seen(path: Path, **axes: int) -> ModelFacts:
    kind = detect(path)
    assert kind is not None
    return look(kind, path, axes)


def field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(content, int):
        return bytes([number << 3]) + varint(content)
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def shape(*dims: int) -> bytes:
    return b"".join(field(2, field(1, dim)) for dim in dims)


def node(name: str, kind: str, *inputs: str, **attributes: bytes) -> bytes:
    parts = [field(1, name.encode()), field(2, kind.encode()), *(field(3, item.encode()) for item in inputs)]
    parts += [field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items()]
    return field(1, b"".join(parts))


FLOAT = field(6, 1)
WEIGHT = field(8, field(1, 1) + field(2, shape(8, 2)) + field(4, bytes(64)))
GRAPH = (
    node("x", "Placeholder", dtype=FLOAT, shape=field(7, shape(-1, 8)))
    + node("w", "Const", dtype=FLOAT, value=WEIGHT)
    + node("y", "MatMul", "x", "w")
)


def tensor_info(name: str, *dims: int) -> bytes:
    return field(1, name.encode()) + field(2, field(1, b"t:0") + field(2, 1) + field(3, shape(*dims)))


SIGNATURE = field(1, b"serving_default") + field(
    2, field(1, tensor_info("x", -1, 8)) + field(2, tensor_info("y", -1, 2))
)
SAVED = field(1, 1) + field(2, field(1, field(5, b"2.21.0")) + field(2, GRAPH) + field(5, SIGNATURE))


def frozen(folder: Path, data: bytes = GRAPH) -> Path:
    (folder / "frozen.pb").write_bytes(data)
    return folder / "frozen.pb"


def saved(folder: Path, data: bytes = SAVED) -> Path:
    (folder / "saved_model.pb").write_bytes(data)
    return folder


def test_a_frozen_graph_tells_placeholders_constants_and_loose_ends(tmp_path: Path) -> None:
    found = seen(frozen(tmp_path), **{"?x.0": 3})
    assert [str(item) for item in found.inputs or ()] == ["x: FP32[?x.0,8]"]
    assert [item.name for item in found.outputs or ()] == ["y"]
    assert (found.parameters, found.sizes) == (16, {"?x.0": 3})
    assert found.operators == {"Placeholder": 1, "Const": 1, "MatMul": 1}


def test_a_saved_model_tells_its_signature(tmp_path: Path) -> None:
    found = seen(saved(tmp_path))
    assert [str(item) for item in found.inputs or ()] == ["x: FP32[?x.0,8]"]
    assert [str(item) for item in found.outputs or ()] == ["y: FP32[?y.0,2]"]
    assert (found.parameters, found.versions, found.problems) == (16, {"tensorflow": "2.21.0"}, ())


def test_variables_without_values_are_a_problem(tmp_path: Path) -> None:
    variable = node("v", "VarHandleOp")
    assert "not frozen" in seen(frozen(tmp_path, GRAPH + variable)).problems[0]
    data = field(2, field(2, GRAPH + variable) + field(5, SIGNATURE))
    assert "variables.index is missing" in seen(saved(tmp_path, data)).problems[0]


@pytest.mark.parametrize("make", [frozen, saved])
def test_cut_messages_are_refused_or_shorter(tmp_path: Path, make: object) -> None:
    assert callable(make)
    whole = SAVED if make is saved else GRAPH
    refused = 0
    for cut in range(len(whole)):
        path = make(tmp_path, whole[:cut])
        try:
            seen(path)
        except CheckFailed as error:
            refused += 1
            assert error.place is not None
    assert refused > len(whole) * 0.9


def test_an_axis_that_a_graph_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic axis 'batch'"):
        seen(frozen(tmp_path), batch=1)


def test_an_index_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ck.index"
    for data in (b"", bytes(48), bytes(40) + 0xDB4775248B80FB57.to_bytes(8, "little"), b"\xff" * 200):
        path.write_bytes(data)
        with pytest.raises(CheckFailed, match="no index of a checkpoint"):
            variables(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net.keras", "net.h5", "saved", "ck.index", "frozen.pb"])
def test_parameters_are_those_that_keras_counts(keras_files: Path, name: str) -> None:
    wanted = json.loads((keras_files / "made.json").read_text())["parameters"]
    assert seen(keras_files / name).parameters == wanted


@pytest.mark.slow
def test_what_keras_and_tensorflow_write_is_understood(keras_files: Path) -> None:
    archive, exported = seen(keras_files / "net.keras"), seen(keras_files / "saved")
    assert [str(item) for item in archive.inputs or ()] == ["image: FP32[?image.0,8,8,3]"]
    assert archive.operators == {"Conv2D": 1, "Flatten": 1, "Dense": 1}
    assert [str(item) for item in exported.inputs or ()] == ["image: FP32[?image.0,8,8,3]"]
    assert [item.shape for item in exported.outputs or ()] == [("?output_0.0", 2)]
    index = (keras_files / "ck.index").read_bytes()
    for cut in range(len(index)):
        (keras_files / "cut.index").write_bytes(index[:cut])
        with pytest.raises(CheckFailed):
            variables(keras_files / "cut.index")
    (keras_files / "cut.index").unlink()
