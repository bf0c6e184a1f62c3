"""Zip archives that may be hostile: a listing and single members, each read within a bound."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from tritonforge.errors import CheckFailed, Place

LISTING_LIMIT: Final = 64 * 2**20
"""Bytes of a central directory. PyTorch writes about 100 a tensor, so that even 500,000 tensors fit."""

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at ``path``, its listing read.

    Raises:
        CheckFailed: truncated, no zip, or a listing above ``LISTING_LIMIT``.
    """
    place = Place(path)
    try:
        with path.open("rb") as stream:
            size = _listing_size(stream)
        if size is not None and size > LISTING_LIMIT:
            raise CheckFailed(
                f"the listing of {path.name} is too large",
                place=place,
                expected=f"at most {LISTING_LIMIT} bytes",
                found=f"{size} bytes",
            )
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise CheckFailed(
            f"{path.name} is truncated or no zip archive",
            place=place,
            expected="a whole zip archive",
            found=f"{path.stat().st_size} bytes ({error})",
            hint="copy or export it again, or compare its sha256 with the one where it came from",
        ) from None
    with archive:
        yield archive


def member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One member's content, which may be at most ``limit`` bytes long however small it is packed.

    Raises:
        CheckFailed: missing, longer, damaged or encrypted.
    """
    place = Place(Path(archive.filename or "archive"), field=name)
    try:
        with archive.open(name) as stream:
            data = stream.read(limit + 1)
    except KeyError:
        raise CheckFailed("the archive lacks an entry", place=place, expected=name) from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise CheckFailed("an entry of the archive is damaged", place=place, found=str(error)) from None
    except Exception as error:  # zlib.error and lzma.LZMAError share no class with the rest
        raise CheckFailed("an entry of the archive does not unpack", place=place, found=str(error)) from None
    if len(data) > limit:
        raise CheckFailed("an entry of the archive is too large", place=place, expected=f"at most {limit} bytes")
    return data


def _listing_size(stream: BinaryIO) -> int | None:
    """How long the central directory claims to be; None where there is none."""
    stream.seek(0, 2)
    end = stream.tell()
    start = max(0, end - 65_536 - _END.size - _LOCATOR.size)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        return None
    size: int = _END.unpack_from(tail, at)[5]
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size : at - _LOCATOR.size + 4] == b"PK\6\7":
        offset = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)[2]
        if offset + _END64.size <= end:
            stream.seek(offset)
            whole = _END64.unpack(stream.read(_END64.size))
            size = max(size, whole[8]) if size != 0xFFFFFFFF else whole[8]
    return size
