"""A member of a zip archive that was stored without packing, as a file to seek in, so that it is never read whole."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place

_HEADER: Final = struct.Struct("<4s5H3L2H")
_PACKED_LIMIT: Final = 64 * 2**20


class StoredMember(io.RawIOBase):
    """Reads ``name`` straight from the archive's file; a packed member is unpacked into memory within a bound.

    Raises:
        CheckFailed: missing, damaged, or packed and above the bound.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__()
        path = Path(archive.filename or "")
        place = Place(path, field=name)
        info = archive.NameToInfo.get(name)
        if info is None:
            raise CheckFailed("the archive lacks an entry", place=place, expected=name)
        self._at = 0
        if info.compress_type != zipfile.ZIP_STORED:
            from tritonforge.sources.archive import member

            data = member(archive, name, _PACKED_LIMIT)
            self._file: Any = io.BytesIO(data)
            self._start, self._size = 0, len(data)
            return
        self._file = path.open("rb")
        self._file.seek(info.header_offset)
        head = self._file.read(_HEADER.size)
        if len(head) < _HEADER.size or head[:4] != b"PK\3\4":
            self._file.close()
            raise CheckFailed("an entry of the archive is damaged", place=place, expected="a local header")
        fields = _HEADER.unpack(head)
        self._start = info.header_offset + _HEADER.size + fields[-2] + fields[-1]
        self._size = info.file_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._size - self._at))
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
