"""Images made of this machine's own programs and the libraries that they need, on a base that the engine has."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

_DOCKERFILE: Final = """\
FROM {base}
COPY lib /opt/libraries
COPY bin /usr/local/bin
ENV LD_LIBRARY_PATH=/opt/libraries
{more}
LABEL made-of="{made_of}"
"""
_OF_THE_BASE: Final = ("libc.so", "libm.so", "ld-linux")


def build(client: Any, base: str, image: str, programs: Sequence[str], more: str) -> str:
    """Build ``image``, unless it is there and made of the same; skips where this machine lacks one of the programs.

    ``more`` is the rest of its Dockerfile.
    """
    import docker.errors

    found = [_program(name, image) for name in programs]
    libraries = sorted({library for path in found for library in _libraries(path)})
    made_of = hashlib.sha256(f"{client.images.get(base).id} {more}".encode())
    for path in (Path(__file__), *found, *libraries):
        made_of.update(path.read_bytes())
    try:
        if client.images.get(image).labels.get("made-of") == made_of.hexdigest():
            return image
    except docker.errors.ImageNotFound:
        pass
    with tempfile.TemporaryDirectory(prefix="tritonforge-image-") as name:
        folder = Path(name)
        for part, paths in (("lib", libraries), ("bin", found)):
            (folder / part).mkdir()
            for path in paths:
                shutil.copy(path, folder / part / path.name)
        text = _DOCKERFILE.format(base=base, more=more.strip(), made_of=made_of.hexdigest())
        (folder / "Dockerfile").write_text(text)
        with (folder / "context.tar").open("w+b") as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for part in ("Dockerfile", "bin", "lib"):
                    archive.add(folder / part, part)
            stream.seek(0)
            client.images.build(fileobj=stream, custom_context=True, tag=image, rm=True, forcerm=True)
    return image


def _program(name: str, image: str) -> Path:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"there is no {name} on this machine to make {image} of")
    return Path(found)


def _libraries(program: Path) -> list[Path]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout  # nothing for a static one
    found = [Path(path) for path in re.findall(r"=> (/\S+)", said)]
    return [path for path in found if not path.name.startswith(_OF_THE_BASE)]
