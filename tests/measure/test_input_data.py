"""The data file that perf_analyzer reads. That a model receives exactly these bytes was checked with the real one."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.errors import SpecError
from tritonforge.measure.input_data import serialize_bytes, write_input_data


def written(path: Path, cases: list[dict[str, Any]], **options: int) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = json.loads(write_input_data(path, cases, **options).read_text())["data"]
    return data


def raw(tensor: dict[str, Any]) -> bytes:
    return base64.b64decode(tensor["b64"], validate=True)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "<i4", ">i4", "i8", "f2", "<f4", ">f4", "f8"])
def test_numbers_go_as_little_endian_bytes_with_their_shape(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    (case,) = written(tmp_path / "d.json", [{"IN": array.T}])
    assert case["IN"]["shape"] == [3, 2]
    assert raw(case["IN"]) == array.T.astype(array.dtype.newbyteorder("<")).tobytes("C")


@pytest.mark.parametrize(
    ("value", "elements", "shape"),
    [
        (bytes(range(256)), [bytes(range(256))], [1]),
        ([b"a\0", b""], [b"a\0", b""], [2]),
        (np.array([[b"x", "é"]], dtype=object), [b"x", "é".encode()], [1, 2]),
        (np.array(["ab", "c"]), [b"ab", b"c"], [2]),
        (np.array(b"one", dtype=object), [b"one"], []),
    ],
)
def test_bytes_go_serialized(tmp_path: Path, value: Any, elements: list[bytes], shape: list[int]) -> None:
    (case,) = written(tmp_path / "d.json", [{"TEXT": value}])
    assert case["TEXT"]["shape"] == shape
    assert raw(case["TEXT"]) == serialize_bytes(elements)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_serialized_bytes_can_be_taken_apart(elements: list[bytes]) -> None:
    data, found = serialize_bytes(elements), []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    assert found == elements


@pytest.mark.parametrize(
    ("cases", "options", "says"),
    [
        ([], {}, "no cases"),
        ([{"A": b"x"}, {"B": b"x"}], {}, "case 1 has other inputs"),
        ([{"A": np.array([1.0, np.nan])}], {}, "case 0, input 'A' has a NaN"),
        ([{"A": np.array([np.inf], dtype="f4")}], {}, "infinity"),
        ([{"A": np.array([1j])}], {}, "no type for complex128"),
        ([{"A": np.array([1, None])}], {}, "bytes or str"),
        ([{"A": [b"x"]}, {"A": [b"x", b"y"]}], {"batch_size": 2}, "2 shapes"),
    ],
)
def test_what_perf_analyzer_would_stumble_over_is_refused(
    tmp_path: Path, cases: list[dict[str, Any]], options: dict[str, int], says: str
) -> None:
    with pytest.raises(SpecError, match=says):
        written(tmp_path / "d.json", cases, **options)
    assert not (tmp_path / "d.json").exists()


def test_cases_of_several_shapes_go_without_batching(tmp_path: Path) -> None:
    assert len(written(tmp_path / "d.json", [{"A": [b"x"]}, {"A": [b"x", b"y"]}])) == 2
