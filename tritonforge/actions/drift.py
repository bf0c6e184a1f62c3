"""``diff``: what runs on a target against what was released there, and against what the spec would release now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.actions.deploy_plan import Plan, changes_between
from tritonforge.actions.served import config_served_differently
from tritonforge.actions.status import read_or_explain, shares_of
from tritonforge.actions.targets import OpenTarget, Progress, open_target
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import ForgeError, UsageError
from tritonforge.rollout.delivery import bundle_of
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.strategies.one_slot import one_slot_start
from tritonforge.rollout.strategies.one_slot_layouts import STRATEGY
from tritonforge.triton.client import Client, Protocol


@dataclass(frozen=True, slots=True)
class Drift:
    """``found`` is what differs on the target, by where; ``waiting`` what a deploy of the current release would change,
    None where there is no release here to compare with."""

    target: str
    release: str
    found: tuple[tuple[str, str], ...]
    waiting: Plan | None

    @property
    def ok(self) -> bool:
        """Whether the target is as it was released."""
        return not self.found

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "release": self.release,
            "ok": self.ok,
            "drift": [{"where": where, "what": what} for where, what in self.found],
            "waiting": None if self.waiting is None else self.waiting.to_json(),
        }


def drift(workspace: Workspace, name: str, *, deep: bool = False, progress: Progress = lambda text: None) -> Drift:
    """Compare a target with its committed release; ``deep`` reads every file there. Nothing is changed.

    Raises:
        UsageError: nothing was deployed there.
    """
    with open_target(workspace, name, progress) as target:
        state = read_or_explain(target).state
        committed = state.committed
        if committed is None:
            raise UsageError(f"nothing was deployed to '{name}' yet", hint=f"tritonforge deploy {name}")
        active = str(committed["active"])
        slot = committed["slots"][active]
        found = [
            *_server(target, active, slot),
            *([] if "adopted" in slot["settings"] else _files(target, str(committed["release"]), deep)),
            *_models(target, active, slot),
        ]
        waiting = None
        release = workspace.releases(target.platform).current()
        if release is not None:
            bundle = bundle_of(release)
            start = (
                one_slot_start(bundle, None, target.host.settings())
                if target.strategy == STRATEGY
                else ServerStart(bundle.release, bundle.arguments, settings=target.host.settings())
            )
            waiting = changes_between(state, bundle, start)
        return Drift(name, str(committed["release"]), tuple(found), waiting)


def _server(target: OpenTarget, active: str, slot: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    status = target.host.status(active)
    if not status.running:
        yield "server", f"{active} does not run: {status.words}"
        return
    if status.fingerprint != slot["fingerprint"]:
        yield "server", f"{active} runs release {str(status.release)[:12]} with other settings than were committed"
    if slot["image"] is not None and status.image not in (None, slot["image"]):
        yield "image", f"{status.image}, and {slot['image']} was released"
    if status.restarts:
        yield "server", f"{active} was restarted {status.restarts} times: {status.words}"
    if target.proxy is not None:
        if not target.host.proxy_status().running:
            yield "proxy", target.host.proxy_status().words
            return
        shares = shares_of(target)
        if shares.get(active) != 100:
            split = ", ".join(f"{share} % to {name}" for name, share in sorted(shares.items()))
            yield "proxy", f"{split or 'nothing known'}, and all of it belongs to {active}"


def _files(target: OpenTarget, release: str, deep: bool) -> Iterator[tuple[str, str]]:
    said = target.host.place.call("intact", {"release": release, "deep": deep}, timeout=3600.0)
    for path in said["bad"]:
        yield path, "is not the file that was released"


def _models(target: OpenTarget, active: str, slot: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The index, versions and configs (signatures among them) of the serving server against the released ones."""
    from tritonforge.repository.pbtxt import parse

    entries = slot["document"]["models"]
    release = slot["release"]
    paths = {str(entry["folder"]): f"snapshots/{release}/models/{entry['folder']}/config.pbtxt" for entry in entries}
    configs = target.host.place.call("read_files", {"paths": sorted(paths.values())})
    found: list[tuple[str, str]] = []
    try:
        with target.host.reach(active) as connection, Client(connection) as client:
            quickest: Protocol = "http" if connection.grpc is None else "grpc"
            index = {(entry.name, entry.version): entry for entry in client.index()}

            def one(entry: Mapping[str, Any]) -> list[str]:
                folder, version = str(entry["folder"]), str(entry["version"])
                there = index.get((folder, version))
                if there is None or there.state != "READY":
                    state = "not there" if there is None else f"{there.state} {there.reason}".strip()
                    return [f"version {version} is {state}"]
                text = configs[paths[folder]]
                if text is None:
                    return []  # the files' check says it
                published = parse(text, Path(paths[folder]))
                if target.strategy == STRATEGY:
                    # A folder that is changed in place names what it serves, whatever policy the release's config has.
                    numbers = sorted(int(item["version"]) for item in entries if item["folder"] == entry["folder"])
                    published.version_policy.specific.versions[:] = numbers
                return config_served_differently(client, folder, int(version), published, protocol=quickest)

            with ThreadPoolExecutor(4) as pool:
                for entry, problems in zip(entries, pool.map(one, entries), strict=True):
                    found += [(str(entry["folder"]), problem) for problem in problems]
            known = {str(entry["folder"]) for entry in entries}
            found += [
                (name, f"version {version} is served and was not released")
                for (name, version), entry in sorted(index.items())
                if entry.state == "READY" and name not in known
            ]
    except ForgeError as error:
        found.append(("server", error.message))
    return found
