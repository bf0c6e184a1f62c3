"""The team's store as a spec or the environment names it, with the secrets behind its references."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.remote.address import parse_address
from tritonforge.errors import Place, UsageError
from tritonforge.spec.store import StoreSpec, reference

if TYPE_CHECKING:  # most builds have no such store
    from tritonforge.artifact.remote.objects import Objects
    from tritonforge.artifact.remote.shared import SharedStore

REMOTE: Final = "TRITONFORGE_REMOTE_STORE"
MODE: Final = "TRITONFORGE_REMOTE_STORE_MODE"
OFF: Final = ("", "off")


def shared_store(workspace: Workspace, warn: Callable[[str], None] = lambda text: None) -> SharedStore | None:
    """The team's store, for one build; None where there is none. Nothing is connected to yet.

    Raises:
        UsageError: the environment says something that is no store.
        EnvironmentLacks: a secret that is referred to is not there.
    """
    spec = effective(workspace.loaded.spec.store)
    if spec is None:
        return None
    from tritonforge.actions.connections import secret_value
    from tritonforge.artifact.remote.link import SharedSettings
    from tritonforge.artifact.remote.shared import SharedStore

    place, folder = workspace.loaded.place("store"), workspace.loaded.folder
    key = None if spec.signing_key is None else secret_value(spec.signing_key, place, folder).encode()
    settings = SharedSettings(
        name=str(parse_address(spec.remote)),
        connect=lambda: connect(workspace, spec, spec.remote),
        timeout_s=spec.timeout_s,
        write=spec.mode == "read-write",
        signing_key=key,
    )
    return SharedStore(settings, workspace.store, warn)


def effective(spec: StoreSpec | None, environ: Mapping[str, str] | None = None) -> StoreSpec | None:
    """What the environment makes of the spec's store. An address from there takes none of the spec's options.

    Raises:
        UsageError: the environment's address or mode is none.
    """
    environ = os.environ if environ is None else environ
    remote, mode = environ.get(REMOTE), environ.get(MODE)
    if remote is not None and remote.strip().lower() in OFF:
        return None
    if remote is not None:
        parse_address(remote)
        same = spec is not None and parse_address(spec.remote) == parse_address(remote)
        told = {} if spec is None else {"mode": spec.mode, "timeout_s": spec.timeout_s, "signing_key": spec.signing_key}
        # Options have credentials in them, which are for the address that they stand beside.
        options = spec.options if spec is not None and same else {}
        spec = StoreSpec.model_validate({**told, "remote": remote, "options": options})
    modes = get_args(StoreSpec.model_fields["mode"].annotation)
    if spec is not None and mode:
        if mode not in modes:
            raise UsageError(f"{MODE} has no such mode", expected=" or ".join(modes), found=mode[:80])
        spec = spec.model_copy(update={"mode": mode})
    return spec


def connect(workspace: Workspace, spec: StoreSpec | None, url: str) -> Objects:
    """What talks to a store; the spec's options, which say who serves it, count for other buckets there too.

    Raises:
        UsageError: the address or the options are wrong.
        EnvironmentLacks: a package or a secret is absent.
    """
    from tritonforge.artifact.remote.objects import open_objects

    address = parse_address(url)
    options: dict[str, Any] = {}
    secrets: list[str] = []
    if spec is not None:
        near = parse_address(spec.remote)
        # Azure's addresses have the account in them, and its credentials are nobody else's.
        account = address.protocol in ("abfs", "abfss") and near.path.split("/")[0] != address.path.split("/")[0]
        if near.protocol == address.protocol and not account:
            place = workspace.loaded.place("store", "options")
            options = {name: _resolved(value, workspace, place, secrets) for name, value in spec.options.items()}
    timeout = StoreSpec.model_fields["timeout_s"].default if spec is None else spec.timeout_s
    return open_objects(address, timeout_s=timeout, options=options, secrets=secrets)


def _resolved(value: Any, workspace: Workspace, place: Place, secrets: list[str]) -> Any:
    """A value of `options` with what its references stand for."""
    found = reference(value)
    if found is not None:
        from tritonforge.actions.connections import secret_value

        secret = secret_value(found, place, workspace.loaded.folder)
        secrets.append(secret)
        return secret
    if isinstance(value, dict):
        return {name: _resolved(item, workspace, place, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, workspace, place, secrets) for item in value]
    return value
