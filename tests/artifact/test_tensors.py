from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.tensors import CASES, TENSORS, Case, CaseSet, from_bytes, read_cases, to_bytes, write_cases

NUMERIC = sorted(name for name, item in BY_NAME.items() if item.numpy not in (None, "object"))
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def typed_arrays(draw: st.DrawFn) -> tuple[str, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from([*NUMERIC, "BYTES"]))
    shape = draw(shapes)
    if datatype != "BYTES":
        return datatype, draw(hnp.arrays(np.dtype(str(BY_NAME[datatype].numpy)), shape))
    array = np.empty(shape, dtype=object)
    items = draw(st.lists(st.binary(max_size=6), min_size=array.size, max_size=array.size))
    array.reshape(-1)[:] = items
    return datatype, array


def same(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.dtype == object:
        return a.shape == b.shape and a.reshape(-1).tolist() == b.reshape(-1).tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(typed_arrays())
def test_a_tensor_survives_its_raw_bytes(typed: tuple[str, np.ndarray[Any, Any]]) -> None:
    datatype, array = typed
    data = to_bytes(array, datatype)
    size = BY_NAME[datatype].bytes
    assert size is None or len(data) == array.size * size
    assert same(from_bytes(data, datatype, array.shape), array)


def test_raw_bytes_are_those_of_tritons_protocol() -> None:
    from tritonclient.utils import serialize_byte_tensor

    array = np.array([b"a", b"", "é".encode()], dtype=object)
    assert to_bytes(array, "BYTES") == serialize_byte_tensor(array).item()
    assert to_bytes(np.array(["é"], dtype=object), "BYTES") == b"\x02\x00\x00\x00\xc3\xa9"


def test_a_view_is_written_row_by_row() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert same(from_bytes(to_bytes(array, "INT32"), "INT32", (3, 2)), np.ascontiguousarray(array))


@given(st.lists(st.tuples(typed_arrays(), typed_arrays()), max_size=3), st.booleans())
def test_cases_survive_the_disk_and_equal_cases_give_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Any], item: bool
) -> None:
    datatypes: dict[str, str] = {}
    cases = []
    for index, ((in_type, given_), (out_type, expected)) in enumerate(pairs):
        datatypes |= {f"x{index}": in_type, f"y{index}": out_type}
        cases.append(Case(f"case{index}", {f"x{index}": given_}, {f"y{index}": expected}, item))
    written = CaseSet("a reference", tuple(cases), datatypes, {"abs": 0.5} if item else None)
    folders = [tmp_path_factory.mktemp("cases") for _ in range(2)]
    for folder in folders:
        write_cases(folder, written)
    for file in (CASES, TENSORS):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    found = read_cases(folders[0])
    assert (found.reference, found.tolerance, found.datatypes) == ("a reference", written.tolerance, datatypes)
    for before, after in zip(cases, found.cases, strict=True):
        assert (before.name, before.item) == (after.name, after.item)
        for name, array in (*before.inputs.items(), *before.outputs.items()):
            assert same({**after.inputs, **after.outputs}[name], array)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    array = np.array([pickle.dumps(print)], dtype=object)
    write_cases(tmp_path, CaseSet("r", (Case("c", {"x": array}, {}),), {"x": "BYTES"}))
    assert read_cases(tmp_path).cases[0].inputs["x"].tolist() == array.tolist()
