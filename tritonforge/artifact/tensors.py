"""Named cases of input and output tensors on disk: ``cases.json`` beside one file of raw bytes.

Numbers are little-endian and row-major; ``BYTES`` elements are each preceded by their length (uint32), as Triton's
protocol does. Equal cases give equal bytes, and nothing is pickled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.signature import Signature

if TYPE_CHECKING:
    import numpy as np

CASES: Final = "cases.json"
TENSORS: Final = "tensors.bin"


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs and the outputs that are expected; ``item`` when the tensors are one item without a batch axis.

    ``sequence`` when they are the requests of a sequence, in order on a leading axis of their own; the rows of a batch
    are then sequences side by side.
    """

    name: str
    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]
    item: bool = False
    sequence: bool = False


@dataclass(frozen=True, slots=True)
class CaseSet:
    """Cases with where their expected outputs come from and the tolerance that was declared for them."""

    reference: str
    cases: tuple[Case, ...]
    datatypes: Mapping[str, str] = field(default_factory=dict)
    tolerance: Mapping[str, float] | None = None


def to_bytes(array: np.ndarray[Any, Any], datatype: str) -> bytes:
    """The raw bytes of a tensor."""
    import numpy as np

    if datatype == "BYTES":
        parts = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return np.ascontiguousarray(array).tobytes()


def from_bytes(data: bytes, datatype: str, shape: Iterable[int]) -> np.ndarray[Any, Any]:
    """The tensor of raw bytes; ``BYTES`` becomes an object array of ``bytes``; ``BF16`` becomes ``float32``."""
    import numpy as np

    shape = tuple(shape)
    if datatype == "BYTES":
        items: list[bytes] = []
        offset = 0
        while offset < len(data):
            (length,) = struct.unpack_from("<I", data, offset)
            items.append(data[offset + 4 : offset + 4 + length])
            offset += 4 + length
        array = np.empty(len(items), dtype=object)
        array[:] = items
        return array.reshape(shape)
    numpy_name = BY_NAME[datatype].numpy or "float32"
    return np.frombuffer(data, dtype=np.dtype(numpy_name)).reshape(shape).copy()


def takes(signature: Signature, case: Case) -> bool:
    """Whether the inputs of a case have the fixed sizes that the signature states."""
    shapes = {tensor.name: tensor.shape for tensor in signature.inputs}
    for name, value in case.inputs.items():
        shape = shapes.get(name, ())
        if case.item and signature.batched:
            shape = shape[1:]
        if case.sequence:
            shape = ("requests", *shape)
        if len(shape) == value.ndim and any(
            isinstance(dim, int) and dim != size for dim, size in zip(shape, value.shape, strict=True)
        ):
            return False
    return True


def write_cases(folder: Path, cases: CaseSet) -> None:
    """Write ``cases.json`` and ``tensors.bin`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    offset = 0
    listed: list[dict[str, Any]] = []
    with (folder / TENSORS).open("wb") as stream:

        def put(tensors: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
            nonlocal offset
            entries = {}
            for name, array in tensors.items():
                datatype = cases.datatypes[name]
                data = to_bytes(array, datatype)
                stream.write(data)
                entries[name] = {"datatype": datatype, "shape": list(array.shape), "offset": offset, "bytes": len(data)}
                offset += len(data)
            return entries

        for case in cases.cases:
            entry = {"name": case.name, "item": case.item, "inputs": put(case.inputs), "outputs": put(case.outputs)}
            listed.append({**entry, "sequence": True} if case.sequence else entry)
    document = {"schema": 1, "reference": cases.reference, "tolerance": cases.tolerance, "cases": listed}
    (folder / CASES).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_cases(folder: Path) -> CaseSet:
    """What :func:`write_cases` wrote."""
    document = json.loads((folder / CASES).read_text(encoding="utf-8"))
    datatypes: dict[str, str] = {}
    with (folder / TENSORS).open("rb") as stream:

        def get(entries: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
            tensors = {}
            for name, entry in entries.items():
                stream.seek(entry["offset"])
                tensors[name] = from_bytes(stream.read(entry["bytes"]), entry["datatype"], entry["shape"])
                datatypes[name] = entry["datatype"]
            return tensors

        cases = tuple(
            Case(
                item["name"],
                get(item["inputs"]),
                get(item["outputs"]),
                bool(item["item"]),
                bool(item.get("sequence", False)),
            )
            for item in document["cases"]
        )
    return CaseSet(document["reference"], cases, datatypes, document["tolerance"])
