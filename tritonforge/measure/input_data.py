"""Write perf_analyzer's JSON input data, so that it measures on real cases.

Every tensor goes as ``{"b64": …, "shape": […]}``: its raw little-endian bytes. For BYTES these are the *serialized*
tensor, each element behind its length in four bytes; plain ``content`` would cut a string at its first NUL. ``shape``
has no batch axis: perf_analyzer puts ``-b`` consecutive cases (all of one shape) into each request.
Source: perf_analyzer ``docs/input_data.md`` and ``src/data_loader.cc``; checked on 2.51.0 by what a model received.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tritonforge.durable import write_atomic
from tritonforge.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Value: TypeAlias = npt.NDArray[np.generic] | bytes | Sequence[bytes]
"""An array (of dtype object, ``S`` or ``U`` for BYTES), one bytes element, or a list of them."""


def write_input_data(path: Path, cases: Sequence[Mapping[str, Value]], *, batch_size: int = 1) -> Path:
    """Write ``cases``, each a map from input names to values without the batch axis; returns ``path``.

    Raises:
        SpecError: no cases, other inputs in one case than in the first, a NaN or infinity (perf_analyzer would lose
            all its results), a type that Triton lacks, or differing shapes with ``batch_size`` above 1.
    """
    if not cases:
        raise SpecError("there are no cases to measure with")
    data: list[dict[str, Any]] = []
    for index, case in enumerate(cases):
        if set(case) != set(cases[0]):
            raise SpecError(f"case {index} has other inputs", expected=str(sorted(cases[0])), found=str(sorted(case)))
        data.append({name: _encode(value, f"case {index}, input '{name}'") for name, value in case.items()})
    if batch_size > 1:
        for name in cases[0]:
            shapes = {tuple(item[name]["shape"]) for item in data}
            if len(shapes) > 1:
                raise SpecError(
                    f"the cases of input '{name}' have {len(shapes)} shapes, which cannot share a batch",
                    found=str(sorted(shapes)),
                    hint="use batch_size 1, or cases of one shape",
                )
    write_atomic(path, json.dumps({"data": data}).encode())
    return path


def serialize_bytes(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor on the wire: each element behind its length as a little-endian uint32.

    Source: KServe v2 protocol, binary tensor data extension.
    """
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def _encode(value: Value, where: str) -> dict[str, Any]:
    import numpy as np

    if isinstance(value, bytes):
        return _tensor(serialize_bytes([value]), (1,))
    array = value if isinstance(value, np.ndarray) else _bytes_array(value)
    if array.dtype.kind in "OSU":
        return _tensor(serialize_bytes([_element(item, where) for item in array.ravel().tolist()]), array.shape)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise SpecError(f"{where}: Triton has no type for {array.dtype}", expected="bool, integers, floats or bytes")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SpecError(f"{where} has a NaN or an infinity, with which perf_analyzer exports no results")
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return _tensor(little.tobytes(), array.shape)


def _bytes_array(items: Sequence[bytes]) -> npt.NDArray[np.generic]:
    import numpy as np

    # dtype object, for numpy's own bytes type drops trailing NULs.
    array = np.empty(len(items), dtype=object)
    array[:] = list(items)
    return array


def _element(item: object, where: str) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise SpecError(f"{where}: a BYTES tensor holds bytes or str", found=type(item).__name__)


def _tensor(raw: bytes, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"b64": base64.b64encode(raw).decode("ascii"), "shape": list(shape)}
