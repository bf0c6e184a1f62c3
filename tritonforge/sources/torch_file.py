"""Read what a PyTorch file holds: its tensors and the globals its pickle names. Nothing of it is executed.

Sources: ``torch/serialization.py`` (zip and legacy layouts), ``torch/_weights_only_unpickler.py`` (which globals
loading weights needs), ``torch/export/pt2_archive`` and the safetensors format's own description.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.archive import member, open_archive
from tritonforge.sources.pickle_reader import BYTES_LIMIT, Pickle, Reader
from tritonforge.sources.pickled_tensors import WEIGHT_GLOBALS, TensorEntry, tensors_in

JSON_LIMIT: Final = 256 * 2**20
LEGACY_MAGIC: Final = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How ``torch.save(..., _use_new_zipfile_serialization=False)`` begins: a pickle of the integer MAGIC_NUMBER."""

SCALAR_TYPES: Final = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
}  # fmt: skip
"""``torch._export.serde.schema.ScalarType``."""

_SAFETENSORS: Final = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "C64": "complex64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TorchFile:
    """``kind`` as :func:`tritonforge.sources.formats.detect` says it; ``globals`` is what unpickling would import."""

    kind: str
    tensors: tuple[TensorEntry, ...]
    globals: tuple[str, ...]

    @property
    def unsafe_globals(self) -> tuple[str, ...]:
        """Those of ``globals`` that rebuild no tensor: what ``torch.load(weights_only=True)`` refuses."""
        return tuple(name for name in self.globals if name not in WEIGHT_GLOBALS)


def read(path: Path) -> TorchFile:
    """Kind, tensors and globals of a file, of which only listings, headers and pickles are read.

    Raises:
        CheckFailed: truncated, malformed, above the bounds, or not of PyTorch.
    """
    place = Place(path)
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"PK"):
        with open_archive(path) as archive:
            return _zip(archive, place)
    if path.suffix == ".safetensors":
        return TorchFile("torch-weights", _safetensors(path), ())
    if head.startswith(LEGACY_MAGIC):
        return _pickled(_legacy(path), place)
    if head[:1] == b"\x80":
        with path.open("rb") as stream:
            return _pickled(Reader(stream, place).read(), place)
    raise CheckFailed(
        f"{path.name} is no PyTorch file",
        place=place,
        expected="a zip archive, a pickle or safetensors",
        found=f"{path.stat().st_size} bytes that begin with {head[:8].hex(' ')}" if head else "an empty file",
    )


def zip_kind(names: Iterable[str]) -> str | None:
    """What a zip of PyTorch is, by the names in it; ``"pickle"`` where its data.pkl decides; None for any other zip.

    Names stand below one folder, which is called after the file.
    """
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("data/aotinductor/") for name in inner):
        return "aoti"
    if any(name.startswith("models/") and name.endswith(".json") for name in inner) and "archive_format" in inner:
        return "torch-export"
    if "serialized_exported_program.json" in {*inner, *names}:
        return "torch-export"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    return "pickle" if "data.pkl" in inner else None


def root_of(archive: zipfile.ZipFile) -> str:
    """The one folder that PyTorch puts everything into, with its slash."""
    first = archive.namelist()[0]
    return first.partition("/")[0] + "/" if "/" in first else ""


def _zip(archive: zipfile.ZipFile, place: Place) -> TorchFile:
    names = archive.namelist()
    kind = zip_kind(names)
    if kind is None:
        raise CheckFailed("a zip archive that PyTorch did not write", place=place, expected="data.pkl or models/*.json")
    root = root_of(archive)
    if kind in ("aoti", "torch-export"):
        return TorchFile(kind, _exported_weights(archive, root), ())
    pickles = [name for name in (f"{root}data.pkl", f"{root}constants.pkl") if name in names]
    if not pickles:
        raise CheckFailed("the archive has more than one root", place=place, expected=f"{root}data.pkl")
    if kind == "pickle":
        return _pickled(_member_pickle(archive, pickles[0], place), place)
    read_all = [_member_pickle(archive, name, place) for name in pickles]
    constants = tensors_in(read_all[1].value, place, prefix="constants") if len(read_all) > 1 else ()
    used = dict.fromkeys(name for one in read_all for name in one.globals)
    return TorchFile(kind, (*tensors_in(read_all[0].value, place), *constants), tuple(used))


def _member_pickle(archive: zipfile.ZipFile, name: str, place: Place) -> Pickle:
    return Reader(io.BytesIO(member(archive, name, BYTES_LIMIT)), Place(place.file, field=name)).read()


def _pickled(found: Pickle, place: Place) -> TorchFile:
    safe = WEIGHT_GLOBALS.issuperset(found.globals)
    return TorchFile("torch-weights" if safe else "torch-pickle", tensors_in(found.value, place), found.globals)


def _legacy(path: Path) -> Pickle:
    """Magic number, protocol, system, then the object; the bytes of the tensors follow and are not read."""
    with path.open("rb") as stream:
        reader = Reader(stream, Place(path))
        for _ in range(3):
            reader.read()
        return reader.read()


def _exported_weights(archive: zipfile.ZipFile, root: str) -> tuple[TensorEntry, ...]:
    entries = []
    configs = [name for name in archive.namelist() if name.startswith(f"{root}data/") and name.endswith("_config.json")]
    for name in configs:
        try:
            for tensor, said in (json_member(archive, name).get("config") or {}).items():
                meta = said["tensor_meta"]
                if meta is not None:
                    sizes = tuple(int(size["as_int"]) for size in meta["sizes"])
                    dtype = SCALAR_TYPES.get(meta["dtype"], "unknown")
                    entries.append(TensorEntry(str(tensor)[:1024], dtype, sizes, trained=bool(said["is_param"])))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise CheckFailed(
                "a list of weights is malformed", place=Place(Path(archive.filename or ""), field=name)
            ) from None
    old = f"{root}serialized_state_dict.pt"
    if old in archive.namelist():
        with zipfile.ZipFile(io.BytesIO(member(archive, old, BYTES_LIMIT))) as inner:
            entries.extend(_zip(inner, Place(Path(archive.filename or ""), field=old)).tensors)
    return tuple(entries)


def json_member(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """A JSON object in an archive.

    Raises:
        CheckFailed: not JSON, no object, or above ``JSON_LIMIT``.
    """
    data = member(archive, name, JSON_LIMIT)
    return json_object(data, Place(Path(archive.filename or ""), field=name))


def json_object(data: bytes, place: Place) -> dict[str, Any]:
    """A JSON object of a model file.

    Raises:
        CheckFailed: not JSON, or no object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError, OverflowError) as error:
        raise CheckFailed("a part of the model is no JSON", place=place, found=str(error)[:200]) from None
    if not isinstance(value, dict):
        raise CheckFailed("a part of the model is no JSON object", place=place, found=type(value).__name__)
    return value


def _safetensors(path: Path) -> tuple[TensorEntry, ...]:
    """The header: 8 bytes of length, little-endian, then JSON. The format allows headers up to 100 MB."""
    place = Place(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(100_000_000, size - 8):
            raise CheckFailed(
                f"{path.name} is truncated or no safetensors file",
                place=place,
                expected="8 bytes of length, then a JSON header of that length",
                found=f"a length of {length} in {size} bytes",
            )
        header = json_object(stream.read(length), place)
    header.pop("__metadata__", None)
    entries, needed = [], 0
    for name, said in header.items():
        try:
            shape = tuple(int(dim) for dim in said["shape"])
            needed = max(needed, int(said["data_offsets"][1]))
            entries.append(TensorEntry(name, _SAFETENSORS.get(said["dtype"], said["dtype"].lower()), shape))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
            raise CheckFailed("a tensor in the header is malformed", place=Place(path, field=name[:200])) from None
    if 8 + length + needed > size:
        raise CheckFailed(
            f"{path.name} is truncated", place=place, expected=f"{8 + length + needed} bytes", found=f"{size} bytes"
        )
    return tuple(entries)


__all__ = ["TensorEntry", "TorchFile", "json_member", "json_object", "read", "root_of", "zip_kind"]
