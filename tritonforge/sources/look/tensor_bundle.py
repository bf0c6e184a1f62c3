"""The index of a TensorFlow checkpoint: which variables it has, with type and shape. No data file is opened.

Source: ``tensorflow/core/util/tensor_bundle`` (keys and ``BundleEntryProto``) over the table format of LevelDB
(``doc/table_format.md``); bundles are written without compression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import Dim
from tritonforge.sources.look.tf_types import NO_WEIGHTS, bytes_of, name_of, shape_of
from tritonforge.sources.wire import Damaged, fields, integer, varint

INDEX_LIMIT: Final = 128 * 2**20
_FOOTER: Final = 48
_MAGIC: Final = 0xDB4775248B80FB57.to_bytes(8, "little")
_SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"
_KEY_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class Variable:
    """One saved tensor: ``size`` is its bytes in the data file."""

    name: str
    datatype: str
    shape: tuple[Dim, ...]
    size: int

    @property
    def elements(self) -> int:
        return prod(dim for dim in self.shape if isinstance(dim, int))

    @property
    def is_weight(self) -> bool:
        """Whether it is no counter, text or state of an optimizer."""
        return self.datatype not in NO_WEIGHTS and not self.is_training_state

    @property
    def is_training_state(self) -> bool:
        first = self.name.partition("/")[0]
        return first in ("optimizer", "_optimizer") or "/.OPTIMIZER_SLOT/" in self.name


def variables(path: Path) -> tuple[Variable, ...]:
    """The variables that the index at ``path`` names.

    Raises:
        CheckFailed: truncated, compressed or no index.
    """
    size = path.stat().st_size
    if not _FOOTER <= size <= INDEX_LIMIT:
        raise _bad(path, f"{size} bytes")
    data = path.read_bytes()
    if data[-8:] != _MAGIC:
        raise _bad(path, "another end than that of a table")
    try:
        return tuple(_read(data))
    except (Damaged, IndexError) as error:
        raise _bad(path, str(error)) from None


def _bad(path: Path, found: str) -> CheckFailed:
    return CheckFailed(
        f"{path.name} is truncated or no index of a checkpoint",
        place=Place(path),
        expected="a table of LevelDB as tf.train.Checkpoint writes it",
        found=found,
    )


def _read(data: bytes) -> Iterator[Variable]:
    end = len(data)
    _, at = varint(data, end - _FOOTER, end)
    _, at = varint(data, at, end)
    for _, handle in _entries(data, *_handle(data, at, end)):
        for key, entry in _entries(data, *_handle(handle, 0, len(handle))):
            if key:  # the empty key holds the header of the bundle
                found = _variable(key.decode("utf-8", "replace"), entry)
                if found is not None:
                    yield found


def _handle(data: bytes, at: int, end: int) -> tuple[int, int]:
    start, at = varint(data, at, end)
    size, _ = varint(data, at, end)
    return start, size


def _entries(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block: each key keeps a part of the one before."""
    stop = start + size
    if stop + 5 > len(data) or size < 4:
        raise Damaged(f"a block at byte {start} is longer than the file")
    if data[stop] != 0:
        raise Damaged("a compressed block, which checkpoints do not have")
    restarts = int.from_bytes(data[stop - 4 : stop], "little")
    end = stop - 4 - 4 * restarts
    key = b""
    at = start
    while at < end:
        shared, at = varint(data, at, end)
        more, at = varint(data, at, end)
        length, at = varint(data, at, end)
        if shared > len(key) or shared + more > _KEY_LIMIT or at + more + length > end:
            raise Damaged(f"an entry at byte {at} is longer than its block")
        key = key[:shared] + data[at : at + more]
        at += more
        yield key, data[at : at + length]
        at += length


def _variable(key: str, entry: bytes) -> Variable | None:
    if key == "_CHECKPOINTABLE_OBJECT_GRAPH":
        return None
    kind, size = 0, 0
    shape: tuple[Dim, ...] | None = ()
    for number, _, start, stop in fields(entry, 0, len(entry)):
        if number == 1:
            kind = integer(entry, start, stop)
        elif number == 2:
            shape = shape_of(entry, start, stop, key)
        elif number == 5:
            size = integer(entry, start, stop)
    if not size and shape is not None:
        size = bytes_of(kind) * prod(dim for dim in shape if isinstance(dim, int))
    return Variable(key.removesuffix(_SUFFIX), name_of(kind), shape or (), size)
