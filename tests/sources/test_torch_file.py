from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.making_torch import Named, Reduced, archive, pickled, safetensors, tensor, weights
from tritonforge.errors import CheckFailed, Place
from tritonforge.sources import archive as archives
from tritonforge.sources import pickle_reader, pickled_tensors
from tritonforge.sources.pickle_reader import Reader
from tritonforge.sources.torch_file import TensorEntry, read


def entries(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(item.name, item.dtype, item.shape) for item in read(path).tensors]


def test_tensors_are_told_by_name_type_and_shape(tmp_path: Path) -> None:
    state = {"a.weight": tensor((4, 8), "0"), "b": [tensor((), "1", "LongStorage")], "step": 3}
    assert entries(weights(tmp_path / "w.pt", state)) == [("a.weight", "float32", (4, 8)), ("b.0", "int64", ())]


def test_one_storage_under_two_names_is_tied(tmp_path: Path) -> None:
    state = {"embed": tensor((3, 2), "0"), "head": tensor((3, 2), "0")}
    assert [item.tied_to for item in read(weights(tmp_path / "w.pt", state)).tensors] == [None, "embed"]


def test_a_parameter_and_a_subclass_are_the_tensor_that_they_wrap(tmp_path: Path) -> None:
    wrapped = Reduced("torch._utils", "_rebuild_parameter", tensor((2,)), True, {})
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    outer = Reduced("torch._tensor", "_rebuild_from_type_v2", rebuild, Named("x", "T"), tensor((5,)).arguments, {})
    found = read(weights(tmp_path / "w.pt", {"p": wrapped, "s": outer}))
    assert [item.shape for item in found.tensors] == [(2,), (5,)]
    assert found.unsafe_globals == ("x.T",)


def test_safetensors_are_read_by_their_header(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "w.safetensors", {"a": ("BF16", [2, 3], 12), "b": ("F8_E4M3", [4], 4)})
    assert read(path).tensors == (TensorEntry("a", "bfloat16", (2, 3)), TensorEntry("b", "float8_e4m3fn", (4,)))


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_cut_safetensors_are_refused(tmp_path: Path, cut: int) -> None:
    path = safetensors(tmp_path / "w.safetensors", {"a": ("F32", [2, 3], 24)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckFailed):
        read(path)


def test_a_pickle_that_would_run_code_is_named_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (mark,))

    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps({"w": Bomb()}))
    found = read(path)
    assert found.kind == "torch-pickle"
    assert any("touch" in name or "getattr" in name for name in found.unsafe_globals)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02u.",
        b"\x80\x02R.",
        b"\x80\x02h\x07.",
        b"\x80\x04\x93.",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(9),
        b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x",
        b"(" * 5000 + b".",
        b"\x80\x02]q\x00h\x00b.\x00"[:-3],
    ],
)
def test_a_malformed_pickle_is_one_clear_error(data: bytes) -> None:
    with pytest.raises(CheckFailed, match="truncated or malformed"):
        Reader(io.BytesIO(data), Place(field="x")).read()


def test_a_pickle_may_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "OPS_LIMIT", 100)
    with pytest.raises(CheckFailed, match="more than 100 opcodes"):
        Reader(io.BytesIO(b"\x80\x02" + b"N0" * 200 + b"N."), Place(field="x")).read()


def test_containers_within_containers_are_visited_once(tmp_path: Path) -> None:
    # Each list holds the one before it twice: 2^40 paths, 40 lists.
    data = b"\x80\x02]q\x00" + b"".join(
        b"](h" + bytes([at]) + b"h" + bytes([at]) + b"eq" + bytes([at + 1]) for at in range(40)
    )
    path = tmp_path / "laughs.bin"
    path.write_bytes(data + b".")
    assert read(path).tensors == ()


def test_names_may_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_tensors, "_NAMES_LIMIT", 10_000)
    with pytest.raises(CheckFailed, match="too long"):
        read(weights(tmp_path / "w.pt", {f"{'k' * 1000}{index}": tensor((1,)) for index in range(20)}))


def test_a_listing_and_an_entry_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb/data.pkl", bytes(80 * 2**20))
    with pytest.raises(CheckFailed, match="too large"):
        read(path)
    monkeypatch.setattr(archives, "LISTING_LIMIT", 10)
    with pytest.raises(CheckFailed, match="listing"):
        read(path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = weights(tmp_path / "w.pt", {"w": tensor((2,))})
    whole = path.read_bytes()
    for cut in range(4, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckFailed):
            read(path)


SEEDS = (
    pickled({"a": tensor((2, 3)), "b": [1, 2.5, "x", (None, True)], "c": Reduced("os", "system", "false")}),
    pickle.dumps({"k": {1, 2}, "f": frozenset((3,)), "z": complex(1, 2), "s": [Path("a")], "n": 10**400}, 4),
    pickle.dumps([bytearray(b"x"), {"d": ({},)}, Exception("e")], 5),
    pickle.dumps({"old": [1, "two", 3.0, Exception]}, 0),
)


@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=6),
    cut=st.integers(0, 400),
)
def test_no_bytes_make_the_reader_run_anything_or_fall_over(
    seed: bytes, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(seed)
    for at, new in edits:
        data[at % len(data) : at % len(data) + len(new)] = new
    # Where nothing may be imported or called, this stays harmless whatever the bytes say.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.system", _never)
        patch.setattr("builtins.__import__", _guard)
        try:
            Reader(io.BytesIO(bytes(data[: len(data) - cut % 50])), Place(field="x")).read()
        except CheckFailed as error:
            assert error.place is not None


_import = __import__


def _never(*_: object) -> None:
    raise AssertionError("the reader called what a pickle names")


def _guard(name: str, *rest: object, **more: object) -> object:
    # Codecs and genops import what they need themselves.
    assert name.partition(".")[0] in {"encodings", "codecs", "_codecs", "pickle", "struct", "io", "re", "warnings"}, (
        name
    )
    return _import(name, *rest, **more)  # type: ignore[arg-type]


@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("x.pt", "x.safetensors"):
        path = folder / name
        path.write_bytes(data)
        try:
            read(path)
        except CheckFailed as error:
            assert error.place is not None


@pytest.mark.parametrize("name", ["state.pt", "legacy.pth", "object.pt", "script.pt", "export.pt2"])
def test_tensors_are_those_that_pytorch_wrote(torch_files: Path, name: str) -> None:
    wanted = json.loads((torch_files / "made.json").read_text())["tensors"]
    assert sorted([one, kind, list(shape)] for one, kind, shape in entries(torch_files / name)) == sorted(wanted)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="PyTorch did not write"):
        read(archive(tmp_path / "x.pt", {"readme.txt": b""}))
