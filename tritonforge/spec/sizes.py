"""Sizes as people write them."""

from __future__ import annotations

import re
from typing import Final

from tritonforge.errors import SpecError

_SIZE: Final = re.compile(r"^(\d+)\s*(|k|m|g|ki|mi|gi)b?$", re.IGNORECASE)
_FACTOR: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def size_in_bytes(text: str) -> int:
    """``64MiB`` as a number of bytes.

    Raises:
        SpecError: it is no size.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise SpecError(f"'{text}' is no size", expected="a number with B, KiB, MiB, GiB, kB, MB or GB")
    return int(match.group(1)) * _FACTOR[match.group(2).lower()]
