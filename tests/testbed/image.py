"""An image laid out like the vendor's, made of the embedded runtime: ``/opt/tritonserver`` with an entrypoint.

Nothing is fetched while it is built: the interpreter, NumPy and ONNX Runtime are those of this test run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from tritonforge.triton.embedded import Runtime
from tritonforge.triton.embedded.libpython import interpreter_library
from tritonforge.triton.embedded.standins import SOURCES, place

IMAGE: Final = "tritonforge-test/triton:24.10"
BASES: Final = ("testbed/python:3.11-bookworm", "debian:bookworm-slim", "debian:bookworm", "python:3.11-bookworm")
"""Any of them will do, as long as it is in the engine already: its C library must not be older than this machine's."""

_PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PACKAGES: Final = ("numpy", "onnxruntime")
_DOCKERFILE: Final = """\
FROM {base}
COPY python /opt/python
COPY packages /opt/python/lib/{python}/site-packages
COPY tritonserver /opt/tritonserver
ENV PATH=/opt/tritonserver/bin:/opt/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    LD_LIBRARY_PATH=/opt/tritonserver/lib:/opt/python/lib
WORKDIR /opt/tritonserver
ENTRYPOINT ["/opt/tritonserver/entrypoint.sh"]
LABEL made-of="{made_of}"
"""
_ENTRYPOINT: Final = """\
#!/bin/sh
printf '\\n=============================\\n== Triton Inference Server ==\\n=============================\\n\\n'
exec "$@"
"""
_LEFT_OUT: Final = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "site-packages", "dist-packages", "config-*", "idlelib", "ensurepip", "*.a"
)


def base_image(client: Any) -> str | None:
    """The first of :data:`BASES` that the engine has."""
    known = {tag for image in client.images.list() for tag in image.tags}
    return next((base for base in BASES if base in known), None)


def build(client: Any, runtime: Runtime, base: str) -> None:
    """Build :data:`IMAGE`, unless it is there and made of the same."""
    import docker.errors

    made_of = _made_of(client, runtime, base)
    try:
        if client.images.get(IMAGE).labels.get("made-of") == made_of:
            return
    except docker.errors.ImageNotFound:
        pass
    with tempfile.TemporaryDirectory(prefix="tritonforge-image-") as name:
        folder = Path(name)
        _lay_out(runtime, folder)
        text = _DOCKERFILE.format(base=base, python=_PYTHON, made_of=made_of)
        (folder / "Dockerfile").write_text(text)
        with (folder / "context.tar").open("w+b") as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for part in ("Dockerfile", "python", "packages", "tritonserver"):
                    archive.add(folder / part, part, filter=_of_root)
            stream.seek(0)
            client.images.build(fileobj=stream, custom_context=True, tag=IMAGE, rm=True, forcerm=True)


def _lay_out(runtime: Runtime, folder: Path) -> None:
    server, python = folder / "tritonserver", folder / "python"
    for part in ("bin", "lib", "caches"):
        shutil.copytree(runtime.root / part, server / part)
    place(runtime, server / "backends")
    (server / "entrypoint.sh").write_text(_ENTRYPOINT)
    (server / "entrypoint.sh").chmod(0o755)
    (python / "bin").mkdir(parents=True)
    shutil.copy(Path(sys.base_prefix) / "bin" / _PYTHON, python / "bin" / _PYTHON)
    (python / "bin" / "python3").symlink_to(_PYTHON)
    shutil.copytree(sysconfig.get_path("stdlib"), python / "lib" / _PYTHON, ignore=_LEFT_OUT, symlinks=True)
    library = interpreter_library(runtime.root.parent)
    if library is not None:
        shutil.copy(library, python / "lib" / library.name)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        found = Path(spec.origin).parent
        shutil.copytree(found, folder / "packages" / package, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        libraries = found.with_name(f"{package}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "packages" / libraries.name)


def _made_of(client: Any, runtime: Runtime, base: str) -> str:
    digest = hashlib.sha256(f"{client.images.get(base).id} {runtime.triton_version} {sys.version}".encode())
    for package in _PACKAGES:
        digest.update(importlib.metadata.version(package).encode())
    for path in [Path(__file__), *sorted(SOURCES.rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
