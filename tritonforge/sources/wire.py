"""Protobuf's wire format, field by field, for files whose classes are not at hand or that are too big to parse.

Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Buffer = bytes | mmap.mmap


class Damaged(ValueError):
    """The bytes are no protobuf message."""


def varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and the place behind it.

    Raises:
        Damaged: it does not end.
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Damaged(f"a number does not end at byte {at}")


def fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of the message in ``data[at:end]``: its number, where its tag begins, where its content begins, ends.

    Raises:
        Damaged: the bytes are no message, or it is longer than what holds it.
    """
    while at < end:
        begin = at
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = varint(data, begin, end)
        kind = tag & 7
        if kind == 2:
            if at >= end:
                raise Damaged(f"a length is missing at byte {at}")
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = varint(data, at - 1, end)
            start = at
            at += size
        elif kind == 0:
            start = at
            at = varint(data, at, end)[1]
        elif kind == 1:
            start = at
            at += 8
        elif kind == 5:
            start = at
            at += 4
        else:
            raise Damaged(f"wire type {kind} at byte {begin}")
        if at > end or tag < 8:
            raise Damaged(f"a field at byte {begin} is longer than what holds it")
        yield tag >> 3, begin, start, at


def last(data: Buffer, at: int, end: int, number: int) -> tuple[int, int] | None:
    """Where the content of the last field ``number`` lies (protobuf lets the last one count)."""
    found = None
    for field, _, start, stop in fields(data, at, end):
        if field == number:
            found = (start, stop)
    return found


def text(data: Buffer, start: int, stop: int) -> str:
    """A string field, at most 64 KiB of it."""
    return bytes(data[start : min(stop, start + 65_536)]).decode("utf-8", "replace")


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - 2**64 if value >= 2**63 else value


def integer(data: Buffer, start: int, stop: int) -> int:
    """A varint field as an int64."""
    return signed(varint(data, start, stop)[0])
