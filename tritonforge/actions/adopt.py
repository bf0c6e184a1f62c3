"""``deploy --adopt``: a Triton that already runs becomes the first release of a target, with nothing restarted."""

from __future__ import annotations

import secrets
import time
from typing import Any

from tritonforge.actions.deploy import Deployment
from tritonforge.actions.targets import OpenTarget, Progress, open_target
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.digest import digest_bytes, digest_of
from tritonforge.errors import CheckFailed, ForgeError, UsageError
from tritonforge.repository.pbtxt import to_text
from tritonforge.rollout.host import SLOTS, Bundle, ServerStart
from tritonforge.rollout.journal import Journal
from tritonforge.rollout.lock import holder_here, target_lock
from tritonforge.rollout.points import remote
from tritonforge.rollout.strategies.two_slots import TwoSlots
from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection


def adopt(
    workspace: Workspace, name: str, running: str, *, dry_run: bool = False, progress: Progress = lambda text: None
) -> Deployment:
    """Make ``running`` what the target serves, behind the target's own proxy: a container of a Docker engine, or the
    Triton behind a Service of a Helm target's namespace.

    Its release is a description of it: nobody knows what its files were made from, so a rollback to it works only
    while it runs. Clients keep its old address until they are moved to the target's.

    Raises:
        UsageError: the target has a release already, is of a kind that adopts nothing, or nothing
            of that name runs.
    """
    clock = time.monotonic()
    with open_target(workspace, name, progress, changing=not dry_run) as target:
        host: Any = target.host
        if not hasattr(host, "adopt") or target.proxy is None:
            raise UsageError(
                f"a target of kind '{target.kind}' adopts nothing",
                expected="a target of kind docker or helm, with two slots",
            )
        with host.reach_foreign(running) as (connection, image, arguments):
            document = describe_running(connection)
        release = digest_of(["adopted", document, image])
        start = ServerStart(release, tuple(arguments), image, settings={"adopted": running})
        bundle = Bundle(release, None, {}, (), tuple(arguments), bool(document["stateful"]), document)
        if dry_run:
            return Deployment(name, "planned", release, None, notes=[f"{running} would be adopted as {release[:12]}"])
        host.prepare()
        with target_lock(host.place, f"adopt {running}") as token:
            state = target.read().state
            if state.committed is not None or state.unfinished is not None:
                raise UsageError(
                    f"'{name}' serves release {str(state.release)[:12]} already",
                    hint="adopt into a target that nothing was deployed to",
                )
            rollout, slot = secrets.token_hex(5), SLOTS[0]
            journal = Journal(host.place, token, rollout, state.events)
            journal.add(
                "begin",
                what="adopt",
                release=release,
                previous=None,
                strategy=target.strategy,
                slot=slot,
                start=start.to_json(),
                arguments=list(arguments),
                document={**document, "files": {}, "folders": []},
                by=holder_here("adopt")["who"],
            )
            taken = _into_slot(target, journal, token, state, bundle, start, slot, progress)
            try:
                with remote("host.adopt"):
                    host.adopt(slot, running, start)
                taken.take_over()
            except (ForgeError, KeyboardInterrupt):
                taken.undo("it could not be adopted")
                raise
            taken.tidy()
    return Deployment(name, "deployed", release, None, None, rollout, slot, time.monotonic() - clock)


def _into_slot(
    target: OpenTarget,
    journal: Journal,
    token: str,
    state: Any,
    bundle: Bundle,
    start: ServerStart,
    slot: str,
    progress: Progress,
) -> TwoSlots:
    assert target.proxy is not None
    return TwoSlots(
        target.host, journal, token, state, bundle, start, slot, target.proxy, target.pace, None, progress,
        target.files.texts,
    )  # fmt: skip


def describe_running(connection: Connection) -> dict[str, Any]:
    """What a server serves, as the document of a release: its index with the digest of each config in force.

    Raises:
        CheckFailed: something of it is not ready.
    """
    models = []
    stateful = False
    with Client(connection) as client:
        if not client.ready():
            raise CheckFailed("that Triton is not ready", found=connection.url, hint="adopt it when it serves")
        index = client.index()
        moving = [
            f"{entry.name} {entry.version}: {entry.state} {entry.reason}"
            for entry in index
            if entry.state not in ("READY", "UNAVAILABLE", "")
        ]
        if moving or not any(entry.state == "READY" for entry in index):
            raise CheckFailed("that Triton serves nothing whole", details=moving)
        for entry in index:
            if entry.state != "READY":
                continue
            config = client.model_config(entry.name, entry.version)
            stateful = stateful or config.HasField("sequence_batching")
            digest = digest_bytes(to_text(config).encode())
            models.append(
                {
                    "folder": entry.name,
                    "name": entry.name,
                    "version": int(entry.version),
                    "backend": config.backend or config.platform,
                    "config": digest,
                    "artifact": "",
                    "kind": "ensemble" if config.platform == "ensemble" else "model",
                }
            )
    return {"name": "adopted", "stateful": stateful, "models": models}
