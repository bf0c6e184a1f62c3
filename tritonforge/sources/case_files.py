"""Case files: inputs and expected outputs of one item, as people write them.

``{"name": …, "inputs": {NAME: [values] | {"file": PATH} | {"text": TEXT}}, "outputs": {NAME: [values]}}``; a file is
read as raw bytes (one ``BYTES`` element), its path relative to the case file and inside the spec's folder. One file
holds one case or a list of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.datatypes import exact_array
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.tensors import Case, CaseSet
from tritonforge.errors import Place, SpecError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

_KEYS: Final = ("name", "inputs", "outputs")


def find(folder: Path, patterns: Sequence[str], place: Place) -> list[Path]:
    """The case files that the globs name, in a fixed order.

    Raises:
        SpecError: a pattern matches nothing, or leaves the spec's folder.
    """
    found: list[Path] = []
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise SpecError("case files lie inside the spec's folder", place=place, found=pattern)
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise SpecError("no case file matches", place=place, found=pattern)
        found.extend(path for path in matches if path not in found)
    return found


def read(files: Sequence[Path], root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The cases as written, with their files."""
    cases: list[tuple[Path, dict[str, Any]]] = []
    for file in files:
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpecError("a case file is not JSON", place=Place(file), found=str(error)) from None
        for index, item in enumerate(data if isinstance(data, list) else [data]):
            if not isinstance(item, dict) or not isinstance(item.get("inputs"), dict):
                raise SpecError("a case has no `inputs`", place=Place(file, None, f"[{index}]"))
            unknown = sorted(item.keys() - _KEYS)
            if unknown:
                raise SpecError(
                    f"unknown key '{unknown[0]}' in a case",
                    place=Place(file, None, f"[{index}]"),
                    expected=", ".join(_KEYS),
                    hint=did_you_mean(unknown[0], _KEYS),
                )
            if not isinstance(item.get("outputs", {}), dict):
                raise SpecError("the `outputs` of a case are no mapping", place=Place(file, None, f"[{index}]"))
            item.setdefault("name", file.stem if not isinstance(data, list) else f"{file.stem}-{index}")
            cases.append((file, item))
    return cases


def referenced(cases: Sequence[tuple[Path, dict[str, Any]]], root: Path) -> list[Path]:
    """The files that the cases read."""
    found = []
    for file, item in cases:
        for value in item["inputs"].values():
            if isinstance(value, dict) and "file" in value:
                found.append(_inside(file, str(value["file"]), root))
    return found


def pack(
    cases: Sequence[tuple[Path, dict[str, Any]]], signature: Signature, root: Path, tolerance: dict[str, float] | None
) -> CaseSet:
    """The cases as tensors of one item each.

    Raises:
        SpecError: a case names a tensor that the model does not have, misses an input, or has another type or shape.
    """
    packed = []
    for file, item in cases:
        place = Place(file, None, item["name"])
        inputs = {}
        for name, value in item["inputs"].items():
            inputs[name] = _tensor(_named(signature.inputs, name, "input", place), value, signature, file, root, place)
        missing = [t.name for t in signature.inputs if t.name not in inputs and not t.optional]
        if missing:
            raise SpecError("a case misses inputs", place=place, expected=", ".join(missing))
        outputs = {}
        for name, value in item.get("outputs", {}).items():
            outputs[name] = _tensor(
                _named(signature.outputs, name, "output", place), value, signature, file, root, place
            )
        packed.append(Case(str(item["name"]), inputs, outputs, item=True))
    datatypes = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
    return CaseSet("case files", tuple(packed), datatypes, tolerance)


def _named(tensors: Sequence[Tensor], name: str, what: str, place: Place) -> Tensor:
    found = next((tensor for tensor in tensors if tensor.name == name), None)
    if found is None:
        raise SpecError(
            f"the model has no {what} '{name}'", place=place, hint=did_you_mean(name, [t.name for t in tensors])
        )
    return found


def _inside(file: Path, relative: str, root: Path) -> Path:
    path = (file.parent / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SpecError("a case reads a file outside the spec's folder", place=Place(file), found=relative)
    if not path.is_file():
        raise SpecError("a case reads a file that is missing", place=Place(file), found=str(path))
    return path


def _tensor(
    tensor: Tensor, value: Any, signature: Signature, file: Path, root: Path, place: Place
) -> np.ndarray[Any, Any]:
    import numpy as np

    dims = tensor.dims(signature.batched)
    if isinstance(value, dict):
        if tensor.datatype != "BYTES":
            raise SpecError(f"'{tensor.name}' is {tensor.datatype}: only BYTES are read from files", place=place)
        data = (
            str(value["text"]).encode()
            if "text" in value
            else _inside(file, str(value.get("file", "")), root).read_bytes()
        )
        array = np.empty((1,), dtype=object)
        array[0] = data
    elif tensor.datatype == "BYTES":
        nested = np.array(value, dtype=object)
        array = np.empty(nested.shape, dtype=object)
        array.reshape(-1)[:] = [
            item if isinstance(item, bytes) else str(item).encode() for item in nested.reshape(-1).tolist()
        ]
    else:
        try:
            array = exact_array(value, tensor.datatype)
        except (TypeError, ValueError, OverflowError) as error:
            raise SpecError(f"'{tensor.name}' is no {tensor.datatype} tensor", place=place, found=str(error)) from None
    if len(array.shape) != len(dims) or any(
        want not in (-1, size) for want, size in zip(dims, array.shape, strict=True)
    ):
        raise SpecError(
            f"'{tensor.name}' has another shape", place=place, expected=str(list(dims)), found=str(list(array.shape))
        )
    return array
