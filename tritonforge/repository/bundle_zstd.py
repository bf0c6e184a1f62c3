"""Zstandard: the standard library's from Python 3.14 on, and its backport before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from tritonforge.errors import CheckFailed, EnvironmentLacks

LEVEL: Final = 3
"""Weights hardly get smaller at higher levels, and take several times as long."""
_MAX_WINDOW_LOG: Final = 27
"""128 MiB, the most that a frame may ask a reader to keep in memory; ``zstd -d`` takes no more by default."""


def compressing(stream: BinaryIO) -> BinaryIO:
    """A stream that writes compressed into another, with a checksum; closing it ends the frame, not the other.

    The bytes depend on what is written and on the version of libzstd, on nothing else.

    Raises:
        EnvironmentLacks: there is no zstd for this Python.
    """
    zstd = _zstd()
    options = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return cast(BinaryIO, zstd.ZstdFile(stream, "wb", options=options))


class Decompressed:
    """Reads a compressed file; what it cannot read is the bundle's fault.

    Raises:
        EnvironmentLacks: there is no zstd for this Python.
    """

    def __init__(self, file: Path) -> None:
        zstd = _zstd()
        self._failed: tuple[type[Exception], ...] = (zstd.ZstdError, EOFError)
        options = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        self._stream = zstd.ZstdFile(file, "rb", options=options)

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            CheckFailed: the file is cut off, damaged or no zstd.
        """
        try:
            return cast(bytes, self._stream.read(size))
        except self._failed as error:
            raise CheckFailed("the bundle is cut off, damaged, or not compressed with zstd", found=str(error)) from None

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _zstd() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise EnvironmentLacks(
            "bundles are compressed with zstd, which this Python lacks", hint="pip install 'tritonforge[bundle]'"
        ) from None
    return zstd
