"""Take from the wheels what the runtime needs, and nothing else."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from tritonforge.errors import CheckFailed

_MAX_BYTES: Final = 2 * 1024**3
_PROGRAMS: Final = ("tritonserver", "triton_python_backend_stub", "perf_analyzer")


def layout(member: str, python: str) -> str | None:
    """Where a member of the wheels goes inside the runtime's folder; None when it is not needed.

    The server's own search path for libraries holds ``$ORIGIN/../lib``, hence ``bin`` beside ``lib``.
    """
    server = "pytriton/tritonserver"
    rules = (
        (rf"{server}/bin/(tritonserver)", r"bin/\1"),
        (r"nvidia_pytriton\.libs/([^/]+)", r"lib/\1"),
        (rf"{server}/backends/python/([^/]+)", r"backends/python/\1"),
        (rf"{server}/python_backend_stubs/{re.escape(python)}/(triton_python_backend_stub)", r"backends/python/\1"),
        (rf"{server}/caches/(local/[^/]+)", r"caches/\1"),
        (r"tritonclient-[^/]+\.data/data/bin/(perf_analyzer)", r"perf/\1"),
        (r"([^/]+)-[^/-]+\.dist-info/(?:licenses/)?(LICEN[CS]E[^/]*|NOTICE[^/]*)", r"licenses/\1/\2"),
    )
    for pattern, target in rules:
        match = re.fullmatch(pattern, member)
        if match is not None:
            return match.expand(target)
    return None


def unpack(wheel: Path, folder: Path, python: str) -> None:
    """Unpack the needed members of ``wheel`` into ``folder``.

    Raises:
        CheckFailed: a member would leave the folder, is a link, or the whole is implausibly large.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MAX_BYTES:
            raise CheckFailed(f"{wheel.name} unpacks to more than {_MAX_BYTES} bytes")
        for member in members:
            _check_name(wheel.name, member)
            target = None if member.is_dir() else layout(member.filename, python)
            if target is None:
                continue
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("xb") as sink:
                shutil.copyfileobj(source, sink, 1024 * 1024)
            path.chmod(0o755 if path.name in _PROGRAMS else 0o644)


def link_perf_libraries(folder: Path) -> None:
    """Give ``perf_analyzer`` its two libraries under the names that it asks for."""
    links = folder / "perf" / "lib"
    links.mkdir(parents=True)
    for wanted, pattern in (("libb64.so.0d", "libb64-*.so.0d"), ("libcudart.so.12", "libcudart-*.so.12*")):
        found = sorted((folder / "lib").glob(pattern))
        if len(found) != 1:
            raise CheckFailed(f"the wheel holds {len(found)} files called {pattern}", expected="one")
        (links / wanted).symlink_to(Path("..") / ".." / "lib" / found[0].name)


def _check_name(wheel: str, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or "\0" in member.filename:
        raise CheckFailed(f"{wheel} holds a member that leaves its folder", found=member.filename)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CheckFailed(f"{wheel} holds a member that is no plain file", found=member.filename)
