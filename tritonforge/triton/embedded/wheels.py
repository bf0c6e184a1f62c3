"""The pinned wheels that the embedded runtime is made of.

They are taken without their dependencies and only unpacked, never installed: the first one's metadata pins
``numpy<2``. The second one is used for ``perf_analyzer`` alone; later releases of it need glibc 2.38.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TRITON_VERSION: Final = "2.51.0"
TRITON_RELEASE: Final = "24.10"
MIN_GLIBC: Final = (2, 35)
PYTHONS: Final = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
"""The CPython versions for which the first wheel holds a stub of the Python backend."""


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file of a wheel's release."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned release: a file for each processor architecture, its licence and where its source is."""

    name: str
    version: str
    files: dict[str, WheelFile]
    licence: str
    source: str


WHEELS: Final = (
    Wheel(
        name="nvidia-pytriton",
        version="0.7.0",
        files={
            "x86_64": WheelFile(
                "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl",
                "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
            ),
            "aarch64": WheelFile(
                "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_aarch64.whl",
                "f99e07ee56fe065337453956afba17d2673e02ec6a632c3de26ce6e7b32a0898",
            ),
        },
        licence="Apache-2.0 (Triton itself: BSD-3-Clause)",
        source="https://github.com/triton-inference-server/pytriton",
    ),
    Wheel(
        name="tritonclient",
        version="2.51.0",
        files={
            "x86_64": WheelFile(
                "tritonclient-2.51.0-py3-none-manylinux1_x86_64.whl",
                "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52",
            ),
            "aarch64": WheelFile(
                "tritonclient-2.51.0-py3-none-manylinux2014_aarch64.whl",
                "ee6f5a508409f6c95069f4d77d34e97bef84fb4a1aedb5d82ad0ad311ad128d5",
            ),
        },
        licence="BSD-3-Clause",
        source="https://github.com/triton-inference-server/client",
    ),
)
