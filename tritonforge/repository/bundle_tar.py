"""A tar that is written and read as a stream, of plain files and folders only, with equal bytes for equal contents.

``tarfile`` reads the extended headers of an archive whole, whatever their size, and knows links, devices and sparse
files. A bundle needs none of these and may be hostile, so its blocks are read here; the headers are ``tarfile``'s.
Format: GNU tar (``L`` headers for long names, base-256 sizes), as ``tar --format=gnu`` writes and any tar reads.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from tritonforge.errors import CheckFailed

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
PIECE: Final = 1 << 20
_MAX_LONG_NAME: Final = 4096
_FILE: Final = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Source(Protocol):
    """Bytes to read."""

    def read(self, size: int = ..., /) -> bytes: ...


def write_folder(stream: BinaryIO, name: str) -> None:
    """Add an empty folder."""
    info = _info(name + "/", 0)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    stream.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))


def write_file(stream: BinaryIO, name: str, size: int, data: Source, seen: Callable[[bytes], None]) -> None:
    """Add a file of ``size`` bytes, read from ``data`` piece by piece; ``seen`` gets each piece.

    Raises:
        CheckFailed: ``data`` has another size.
    """
    stream.write(_info(name, size).tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
    left = size
    while left:
        piece = data.read(min(PIECE, left))
        if not piece:
            raise CheckFailed("a file of the release is shorter than release.json says", found=name)
        seen(piece)
        stream.write(piece)
        left -= len(piece)
    if data.read(1):
        raise CheckFailed("a file of the release is longer than release.json says", found=name)
    stream.write(bytes(-size % BLOCK))


def write_end(stream: BinaryIO, written: int) -> None:
    """Close the archive, of which ``written`` bytes stand, as tar does: two empty blocks and a full record."""
    stream.write(bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # its time, owner and group are 0
    info.size, info.mode = size, 0o644
    return info


@dataclass(slots=True)
class Member:
    """A file or a folder of the archive. The bytes of a file are read before the next member is asked for."""

    name: str
    folder: bool
    size: int
    stream: Source
    left: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file, piece by piece.

        Raises:
            CheckFailed: the archive ends within it.
        """
        while self.left:
            piece = self.stream.read(min(PIECE, self.left))
            if not piece:
                raise CheckFailed("the bundle ends in the middle", found=repr(self.name)[:300])
            self.left -= len(piece)
            yield piece


def read_members(stream: Source) -> Iterator[Member]:
    """The members of an archive in their order, then a look at whether anything comes after its end.

    Raises:
        CheckFailed: it is no tar, is cut off, holds anything but plain files and folders, or goes on after its end.
    """
    long_name: str | None = None
    while True:
        block = _exactly(stream, BLOCK)
        if not any(block):
            _check_end(stream)
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError) as error:
            raise CheckFailed("the bundle is no well-formed tar", found=str(error)) from None
        if info.size < 0:
            raise CheckFailed("the bundle has a file of negative size", found=repr(info.name)[:300])
        if info.type == tarfile.GNUTYPE_LONGNAME and long_name is None:
            long_name = _long_name(stream, info.size)
            continue
        name, long_name = long_name or info.name, None
        if info.type == tarfile.DIRTYPE:
            if info.size:
                raise CheckFailed("the bundle has a folder with bytes", found=repr(name)[:300])
            yield Member(name.rstrip("/"), True, 0, stream, 0)
        elif info.type in _FILE:
            member = Member(name, False, info.size, stream, info.size)
            yield member
            for _ in member.pieces():
                pass
            _exactly(stream, -info.size % BLOCK)
        else:
            raise CheckFailed(
                "the bundle holds what is no plain file or folder",
                expected="no links, devices, sparse files or extended headers",
                found=f"{name!r}"[:300] + f" of type {info.type!r}",
            )


def _long_name(stream: Source, size: int) -> str:
    if size > _MAX_LONG_NAME:
        raise CheckFailed("the bundle has a name that is too long", found=f"{size} bytes")
    data = _exactly(stream, size + -size % BLOCK)[:size].rstrip(b"\0")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CheckFailed("the bundle has a name that is not UTF-8", found=repr(data)[:300]) from None


def _check_end(stream: Source) -> None:
    """One more empty block, padding to a record, and nothing else."""
    rest = b""
    while len(rest) <= RECORD and (piece := stream.read(RECORD + 1 - len(rest))):
        rest += piece
    if len(rest) < BLOCK:
        raise CheckFailed("the bundle ends in the middle", found="its end mark is cut off")
    if any(rest) or len(rest) > RECORD:
        raise CheckFailed("the bundle goes on after its end")


def _exactly(stream: Source, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            raise CheckFailed("the bundle ends in the middle")
        data += piece
    return data
