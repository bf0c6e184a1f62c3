"""``release export``, ``verify`` and ``import``: a release in one file, for sites that no network leads to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tritonforge.actions.workspace import Workspace
from tritonforge.durable import folder_lock
from tritonforge.errors import UsageError
from tritonforge.repository.bundle import Exported, Progress, export_bundle
from tritonforge.repository.bundle_admit import Admitted, admit_bundle
from tritonforge.repository.bundle_manifest import Image
from tritonforge.repository.bundle_read import Trust, read_bundle
from tritonforge.repository.bundle_signature import read_private_key, read_public_keys
from tritonforge.repository.bundle_verdict import Verdict
from tritonforge.repository.release import Release
from tritonforge.triton.embedded.machine import vendor_image


@dataclass(frozen=True, slots=True)
class Signing:
    """How to sign: a private key's file, the environment variable with its passphrase, and what to sign."""

    key: Path
    passphrase_env: str | None = None
    detached: bool = False


def export_release(
    workspace: Workspace,
    platform_name: str | None,
    reference: str | None,
    file: Path | None,
    signing: Signing | None,
    progress: Progress,
) -> Exported:
    """Write a release (the current one without a reference) into a bundle: ``<name>-<digest>.tar.zst`` without a name.

    Raises:
        UsageError: there is no such release, or the key cannot be used.
        CheckFailed: the release is damaged.
        EnvironmentLacks: a package is absent, or the file cannot be written.
    """
    platform = workspace.platform(platform_name)
    folder = workspace.releases(platform)
    key = None if signing is None else read_private_key(signing.key, passphrase(signing.passphrase_env))
    release = folder.find(reference)
    target = file or Path(f"{release.document['name']}-{platform.name}-{release.digest[:12]}.tar.zst")
    if target.is_dir():
        raise UsageError("the bundle is one file, and that is a folder", found=str(target))
    with folder.hold(release):
        return export_bundle(
            release,
            serving_image(release),
            target,
            key=key,
            detached=signing is not None and signing.detached,
            progress=progress,
        )


def verify_release(file: Path, key: Path | None, require_signature: bool, progress: Progress) -> Verdict:
    """Read all of a bundle and say what is wrong with it; ``key`` has the public keys that may have signed it.

    Raises:
        UsageError: there is no such file, or no key in ``key``.
        EnvironmentLacks: a package is absent.
    """
    return read_bundle(file, trust_in(key, require_signature), progress=progress)


def import_release(
    workspace: Workspace,
    platform_name: str | None,
    file: Path,
    key: Path | None,
    require_signature: bool,
    progress: Progress,
    waiting: Callable[[str], None],
) -> Admitted:
    """Take a bundle's release in among those of a platform, for ``deploy --release``; what is current stays so.

    Raises:
        CheckFailed: the bundle is bad.
        UsageError: it is for another platform, or there is no such file or key.
        EnvironmentLacks: a package is absent, there is no room, or the folder cannot be written.
    """
    platform = workspace.platform(platform_name)
    with folder_lock(workspace.build_root / ".lock", notify=waiting):
        return admit_bundle(
            file,
            workspace.releases(platform),
            platform.to_json(),
            trust_in(key, require_signature),
            progress,
        )


def serving_image(release: Release) -> Image:
    """The image that serves a release: the one of its platform, else NVIDIA's of its platform's Triton."""
    platform = release.document["platform"]
    reference, _, digest = str(platform.get("image") or vendor_image(str(platform["triton"]))).partition("@")
    return Image(reference=reference, digest=digest or None)


def trust_in(key: Path | None, required: bool) -> Trust:
    """Whose signatures count: those of the public keys in a file, or anybody's."""
    return Trust(None if key is None else tuple(read_public_keys(key)), required)


def passphrase(variable: str | None) -> bytes | None:
    """The passphrase of a private key, from the environment variable that has it."""
    if variable is None:
        return None
    value = os.environ.get(variable)
    if value is None:
        raise UsageError(
            f"the environment variable {variable} is not set",
            hint="--passphrase-env names the variable that has the passphrase, and is not the passphrase",
        )
    return value.encode()
