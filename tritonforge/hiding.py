"""Texts without the secrets that went with a request: what answers may repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TELLING: Final = 4
"""Shorter values are found in any text by chance."""


def hide(text: str, headers: Mapping[str, str]) -> str:
    """``text`` with dots for every value of ``headers``, and for the token alone that follows a scheme's name."""
    values = {part for value in headers.values() for part in (value, value.rpartition(" ")[2]) if len(part) >= _TELLING}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "…")
    return text
