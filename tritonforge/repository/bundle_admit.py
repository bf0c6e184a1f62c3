"""Take the release of a bundle in among those of a platform: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.digest import digest_file
from tritonforge.durable import disk_errors, exchange, fault_point, fsync_folder
from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.repository.bundle import Progress
from tritonforge.repository.bundle_manifest import SBOM, Manifest
from tritonforge.repository.bundle_read import ANYONE, Trust, read_bundle
from tritonforge.repository.bundle_verdict import Verdict, settle
from tritonforge.repository.release import PlatformFolder, Release, read_release

_FACETS: Final = ("triton", "processor", "gpu", "tensorrt", "jetpack")
"""What a release is built for; it runs on no other."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A release that is there now; ``new`` when it was not before."""

    release: Release
    new: bool
    verdict: Verdict


def admit_bundle(
    file: Path,
    folder: PlatformFolder,
    platform: Mapping[str, Any],
    trust: Trust = ANYONE,
    progress: Progress = lambda done, total: None,
) -> Admitted:
    """Read and check a bundle, and put its release beside the platform's others. The build lock is held.

    What is current stays current. A release that is there already is read anew, and replaced where it is damaged.

    Raises:
        CheckFailed: the bundle is bad; with all that is wrong.
        UsageError: it is for another platform.
        EnvironmentLacks: there is no room, or the folder cannot be written; nothing changed then.
    """

    def accept(manifest: Manifest) -> None:
        check_platform("bundle", manifest.platform, platform)
        free_space(folder.releases, manifest.size)

    with disk_errors("cannot import the release", folder.releases):
        folder.releases.mkdir(parents=True, exist_ok=True)
        for left in folder.releases.glob(".staging-*"):
            shutil.rmtree(left, ignore_errors=True)
        fault_point("import.stage")
        staging = Path(tempfile.mkdtemp(prefix=f".staging-{os.getpid()}-", dir=folder.releases))
        try:
            staging.chmod(0o755)
            verdict = read_bundle(file, trust, unpack=staging, accept=accept, progress=progress)
            digest = settle(verdict).release
            _make_durable(staging)
            fault_point("import.staged")
            target = folder.releases / digest
            new = not _is_intact(target, settle(verdict))
            fault_point("import.rename")
            if new and target.exists():  # a damaged one: somebody changed an immutable folder
                exchange(staging, target)
            elif new:
                staging.rename(target)
            fsync_folder(folder.releases)
            fault_point("import.renamed")
            shutil.rmtree(staging, ignore_errors=True)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return Admitted(read_release(target), new, verdict)


def _is_intact(target: Path, manifest: Manifest) -> bool:
    """Whether the release stands there already, in every byte; what serves from it is then left alone."""
    files = {path: file for path, file in manifest.files.items() if path != SBOM}
    try:
        return all((target / path).stat().st_size == file.size for path, file in files.items()) and all(
            digest_file(target / path) == file.sha256 for path, file in files.items()
        )
    except OSError:
        return False


def check_platform(what: str, made_for: Mapping[str, Any], platform: Mapping[str, Any]) -> None:
    """Refuse a release that was built for something else than ``platform``.

    Raises:
        UsageError: it was.
    """
    differing = [name for name in _FACETS if made_for.get(name) != platform.get(name)]
    if differing:
        raise UsageError(
            f"the {what} is for another platform than '{platform['name']}'",
            expected=", ".join(f"{name} {platform.get(name)}" for name in differing),
            found=", ".join(f"{name} {made_for.get(name)!r}"[:80] for name in differing),
            hint="name the platform of the spec that it is for by --platform, or add one",
        )


def free_space(folder: Path, needed: int) -> None:
    """Refuse what cannot fit before any of it is written.

    Raises:
        EnvironmentLacks: the disk of ``folder`` has less than ``needed`` bytes.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise EnvironmentLacks(
            "the disk has no room for the release",
            expected=f"{needed} bytes",
            found=f"{free} bytes free at {folder}",
            hint="free some space (`tritonforge cache gc` frees the store)",
        )


def _make_durable(folder: Path) -> None:
    """Make all names below ``folder`` durable."""
    for base, _, _ in os.walk(folder):
        fsync_folder(Path(base))
