"""Install the embedded runtime into a per-user folder, once, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.store import default_home
from tritonforge.durable import disk_errors, folder_lock, fsync_file, fsync_folder, write_json
from tritonforge.errors import EnvironmentLacks
from tritonforge.triton.embedded.fetch import fetch, sha256
from tritonforge.triton.embedded.libpython import ensure_library
from tritonforge.triton.embedded.machine import OTHER_WAYS, architecture, python_version
from tritonforge.triton.embedded.runtime import Runtime
from tritonforge.triton.embedded.unpack import link_perf_libraries, unpack
from tritonforge.triton.embedded.wheels import TRITON_RELEASE, TRITON_VERSION, WHEELS

_SCHEMA: Final = 1
_MANIFEST: Final = "runtime.json"


def find(home: Path | None = None) -> Runtime | None:
    """The runtime installed for this interpreter, or None when there is none or it is not whole.

    Cheap: every file of the manifest must be there with its size; :func:`verify` compares digests.
    """
    folder = _folder(home)
    manifest = _manifest(folder)
    if manifest is None:
        return None
    for name, entry in manifest["files"].items():
        try:
            if (folder / name).stat().st_size != entry["size"]:
                return None
        except OSError:
            return None
    return Runtime(folder, manifest["python"], manifest["triton"], manifest["release"])


def verify(runtime: Runtime) -> list[str]:
    """The files that differ from what was installed, by their digests; empty when all is well."""
    manifest = _manifest(runtime.root)
    if manifest is None:
        return [_MANIFEST]
    names: dict[str, dict[str, Any]] = manifest["files"]
    return [
        name
        for name, entry in sorted(names.items())
        if not (runtime.root / name).is_file() or sha256(runtime.root / name) != entry["sha256"]
    ]


def install(
    home: Path | None = None,
    *,
    offline: bool = False,
    wheels: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Runtime:
    """The runtime for this interpreter, installed first where it is absent or damaged.

    Safe to run from several processes at once. ``wheels`` names a folder that already holds the wheel files, for
    machines without a network; nothing is downloaded that is found there.

    Raises:
        EnvironmentLacks: this machine cannot run it, ``offline`` is set and it is absent, or the download failed.
        CheckFailed: a wheel is not the one that was pinned.
    """
    machine = architecture()
    say = progress or (lambda _: None)
    folder = _folder(home)
    ensure_library(folder.parent, offline=offline, say=say)
    found = find(home)
    if found is not None:
        return found
    if offline and wheels is None:
        raise EnvironmentLacks(
            "the embedded Triton is not installed, and downloading is not allowed",
            expected=str(folder),
            hint=f"run `tritonforge runtime install` with a network; or {OTHER_WAYS}",
        )
    parent = folder.parent
    with (
        disk_errors("the embedded Triton could not be installed", parent),
        folder_lock(parent / f".{folder.name}.lock", notify=lambda who: say(f"waiting for {who}, who is installing")),
    ):
        found = find(home)
        if found is not None:
            return found
        _remove_leftovers(parent, folder.name)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=parent))
        try:
            _build(staging, machine, None if wheels is None else wheels.absolute(), offline, say)
            _publish(staging / "runtime", folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    found = find(home)
    if found is None:
        raise EnvironmentLacks(f"{folder} was installed but is not whole", hint="remove it and install again")
    say(f"Triton {TRITON_VERSION} ({TRITON_RELEASE}) is installed in {folder}")
    return found


def _folder(home: Path | None) -> Path:
    return (home or default_home()).absolute() / "runtimes" / f"triton-{TRITON_VERSION}-py{python_version()}"


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        data = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or data.get("schema") != _SCHEMA:
        return None
    return data


def _build(staging: Path, machine: str, given: Path | None, offline: bool, say: Callable[[str], None]) -> None:
    downloads, root = staging / "wheels", staging / "runtime"
    downloads.mkdir()
    root.mkdir()
    for wheel in WHEELS:
        file = wheel.files[machine]
        if offline and (given is None or not (given / file.name).is_file()):
            raise EnvironmentLacks(
                f"{wheel.name} {wheel.version} is absent, and downloading is not allowed",
                expected=f"{file.name} in {given}",
            )
        path = fetch(wheel, machine, downloads, given=given, say=say)
        say(f"unpacking {wheel.name} {wheel.version}")
        unpack(path, root, python_version())
    link_perf_libraries(root)
    write_json(
        root / _MANIFEST,
        {
            "schema": _SCHEMA,
            "triton": TRITON_VERSION,
            "release": TRITON_RELEASE,
            "python": python_version(),
            "architecture": machine,
            "wheels": {
                wheel.name: {
                    "version": wheel.version,
                    "file": wheel.files[machine].name,
                    "sha256": wheel.files[machine].sha256,
                    "licence": wheel.licence,
                    "source": wheel.source,
                }
                for wheel in WHEELS
            },
            "files": {
                str(path.relative_to(root)): {"size": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(root.rglob("*"))
                if path.is_file()
            },
        },
    )


def _publish(staged: Path, folder: Path) -> None:
    for path in staged.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
        elif not path.is_symlink():
            fsync_file(path)
    if folder.exists():
        # Not whole, or it would have been found. A rename cannot replace a folder that holds something.
        folder.rename(folder.with_name(f".{folder.name}.broken.{os.getpid()}"))
    staged.rename(folder)
    fsync_folder(folder.parent)


def _remove_leftovers(parent: Path, name: str) -> None:
    # The lock is held: whatever carries these names belongs to an installation that was killed.
    for path in [*parent.glob(f".{name}.*.tmp"), *parent.glob(f".{name}.broken.*")]:
        shutil.rmtree(path, ignore_errors=True)
