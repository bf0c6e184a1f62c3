"""The live folder as a target has it committed, as a release wants it, and what lies between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tritonforge.errors import CheckFailed, UsageError
from tritonforge.rollout.host import Bundle, Host
from tritonforge.rollout.journal import TargetState
from tritonforge.rollout.live_folder import LiveFolder, layout_of
from tritonforge.rollout.live_folder_plan import InPlace, plan_in_place

STRATEGY: Final = "one-slot"


def steps_in_place(host: Host, state: TargetState, bundle: Bundle) -> list[str]:
    """What a deployment would do, in words.

    Raises:
        UsageError: the release cannot take over in place.
    """
    return planned(host, state, bundle, proving=True).lines()


def planned(host: Host, state: TargetState, bundle: Bundle, *, proving: bool) -> InPlace:
    """What changes, from what is committed on a target to a release.

    Raises:
        UsageError: the release cannot take over in place.
    """
    old, new = layouts(host, state, bundle)
    if new is None:
        raise CheckFailed(f"the target does not have the release {bundle.release[:12]} any more")
    return plan_in_place(old, new, proving=proving)


def layouts(
    host: Host, state: TargetState, bundle: Bundle
) -> tuple[dict[str, LiveFolder], dict[str, LiveFolder] | None]:
    """The live folder as it is committed, and as a release wants it (None: the release is neither here nor there).

    Raises:
        UsageError: the target has models of somebody else under these names.
    """
    committed = state.committed
    before = None if committed is None else str(committed["release"])
    releases = [bundle.release] if before is None else [before, bundle.release]
    there = host.place.call("live", {"releases": releases})
    taken = sorted({str(entry["folder"]) for entry in bundle.document["models"]} & set(there["foreign"]))
    if taken:
        raise UsageError(
            "the server's repository has models under these names that tritonforge did not put there",
            found=", ".join(taken),
            hint="move them out of it, or give the release's models another `folder:`; others are left alone",
        )
    configs = configs_of(there["configs"], bundle)
    old = {} if before is None else layout(_committed_bundle(state, before), configs[before])
    return old, layout(bundle, configs[bundle.release]) if configs.get(bundle.release) else None


def configs_of(there: Mapping[str, Mapping[str, str]], bundle: Bundle) -> dict[str, dict[str, str]]:
    """The configs of releases as they were made: the bundle's from here where it is here, others from the target."""
    found = {release: dict(configs) for release, configs in there.items()}
    if bundle.folder is not None:
        models = bundle.folder / "models"
        folders = {str(entry["folder"]) for entry in bundle.document["models"]}
        found[bundle.release] = {
            name: (models / name / "config.pbtxt").read_text(encoding="utf-8") for name in sorted(folders)
        }
    return found


def layout(bundle: Bundle, configs: Mapping[str, str]) -> dict[str, LiveFolder]:
    """The live folder of a bundle."""
    return layout_of(bundle.document["models"], bundle.files, bundle.folders, configs)


def _committed_bundle(state: TargetState, release: str) -> Bundle:
    for event in reversed(state.history):
        if event["release"] == release:
            said = event["document"]
            return Bundle(release, None, said["files"], said["folders"], (), False, said)
    raise CheckFailed(f"the target's journal does not say what release {release[:12]} is made of")


def summary_of(bundle: Bundle) -> dict[str, Any]:
    """What status, diff and history want to know of a release when it is not at hand."""
    return {
        "name": bundle.document.get("name"),
        "stateful": bundle.stateful,
        "models": [
            {name: entry[name] for name in ("folder", "name", "version", "backend", "config", "artifact", "kind")}
            for entry in bundle.document.get("models", [])
        ],
    }
