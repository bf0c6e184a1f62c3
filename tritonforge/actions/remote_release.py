"""``release push`` and ``release pull``: releases to and from object stores, with only the bytes that are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tritonforge.actions.bundle import Signing, passphrase, trust_in
from tritonforge.actions.shared import connect, effective
from tritonforge.actions.workspace import Workspace
from tritonforge.durable import folder_lock
from tritonforge.interruption import interruptible
from tritonforge.repository.bundle import Progress
from tritonforge.repository.bundle_signature import read_private_key
from tritonforge.repository.remote_release import Pulled, Pushed, find_remote, pull_release, push_release


@dataclass(frozen=True, slots=True)
class PushOptions:
    """``latest``: whether ``pull URL latest`` finds it from now on; ``everything``: send what is there, too."""

    latest: bool = True
    signing: Signing | None = None
    everything: bool = False
    dry_run: bool = False


def push(
    workspace: Workspace,
    platform_name: str | None,
    url: str,
    reference: str | None,
    options: PushOptions,
    progress: Progress,
) -> Pushed:
    """Send a release (the current one without a reference) to an object store.

    Raises:
        UsageError: there is no such release, or the address is none.
        CheckFailed: the release is damaged.
        EnvironmentLacks: a package is absent, or the store cannot be used.
        Interrupted: what arrived is not sent again.
    """
    folder = workspace.releases(workspace.platform(platform_name))
    signing = options.signing
    key = None if signing is None else read_private_key(signing.key, passphrase(signing.passphrase_env))
    objects = connect(workspace, effective(workspace.loaded.spec.store), url)
    release = folder.find(reference)
    with interruptible(), folder.hold(release):
        return push_release(
            release,
            objects,
            latest=options.latest,
            key=key,
            everything=options.everything,
            dry_run=options.dry_run,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class PullOptions:
    """``key`` has the public keys that may have signed it; ``current``: make it current."""

    key: Path | None = None
    require_signature: bool = False
    current: bool = False


def pull(
    workspace: Workspace,
    platform_name: str | None,
    url: str,
    reference: str,
    options: PullOptions,
    progress: Progress,
    waiting: Callable[[str], None],
) -> Pulled:
    """Fetch a release from an object store and put it among those of a platform.

    Raises:
        CheckFailed: it is damaged, or not signed as asked.
        UsageError: there is no such release, or it is for another platform.
        EnvironmentLacks: a package is absent, there is no room, or the store cannot be used.
        Interrupted: what arrived is not fetched again.
    """
    platform = workspace.platform(platform_name)
    folder, store = workspace.releases(platform), workspace.store.open()
    trust = trust_in(options.key, options.require_signature)
    objects = connect(workspace, effective(workspace.loaded.spec.store), url)
    with interruptible(), folder_lock(workspace.build_root / ".lock", notify=waiting), store.in_use():
        digest = find_remote(objects, reference, workspace.loaded.spec.name, platform.name)
        done = pull_release(objects, digest, folder, platform.to_json(), store, trust=trust, progress=progress)
        if options.current:
            folder.make_current(done.release)
    return done
