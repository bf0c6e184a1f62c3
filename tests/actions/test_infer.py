"""What `infer` makes of a value, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonforge.actions.infer import _array, _assign
from tritonforge.errors import UsageError


def tensor(datatype: str, *shape: int) -> dict[str, Any]:
    return {"datatype": datatype, "shape": list(shape)}


def test_a_long_text_is_a_text() -> None:
    assert _array("x" * 5000, "t", tensor("BYTES", 1), False).tolist() == [b"x" * 5000]
    with pytest.raises(UsageError):
        _array("x" * 5000 + ".npy", "t", tensor("FP32", 1), False)
    assert _assign("m", {"t": tensor("BYTES", 1)}, set(), "x" * 5000 + ".json", {})


def test_a_json_file_may_hold_a_list(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1, 2.0]")
    (text,) = _assign("m", {"x": tensor("INT32", 2)}, set(), str(file), {}).values()
    assert _array(text, "x", tensor("INT32", 2), False).tolist() == [1, 2]


def test_a_file_that_is_no_npy_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    for data in (b"", b"\x93NUMPY\x01\x00", b"text"):
        file.write_bytes(data)
        with pytest.raises(UsageError, match=r"no \.npy file"):
            _array(str(file), "x", tensor("FP32", 2), False)


@pytest.mark.parametrize(
    ("text", "datatype"),
    [("[1.7, 2]", "INT32"), ("[NaN, 2]", "INT64"), ("[1e20, 2]", "INT64"), ("[300, 2]", "UINT8"), ("[1, 2]", "BOOL")],
)
def test_values_that_the_type_cannot_hold_are_refused(text: str, datatype: str) -> None:
    with pytest.raises(UsageError):
        _array(text, "x", tensor(datatype, 2), False)


def test_an_array_file_is_not_cut_to_a_smaller_type(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([300, 1]))
    assert _array(str(tmp_path / "a.npy"), "x", tensor("INT16", 2), False).tolist() == [300, 1]
    with pytest.raises(UsageError, match="UINT8"):
        _array(str(tmp_path / "a.npy"), "x", tensor("UINT8", 2), False)
