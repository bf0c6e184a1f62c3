"""Bring a release to a target: only the files that are not there yet travel, and a snapshot is made of them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import inside
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.repository.release import Release
from tritonforge.rollout.host import Bundle
from tritonforge.rollout.place import AgentRefused, Place
from tritonforge.rollout.strategy import Progress

SPARE: Final = 64 << 20
"""Bytes that stay free on the target's disk after a delivery."""


def bundle_of(release: Release) -> Bundle:
    """What of a release goes to a target: the models. Golden cases stay here, where they are asked from."""
    files: dict[str, dict[str, Any]] = {}
    folders: list[str] = []
    stateful = False
    for entry in release.models():
        folder = str(entry["folder"])
        for path, content in entry["files"].items():
            files[f"models/{folder}/{path}"] = {"sha256": content["sha256"], "size": content["size"]}
        folders.append(f"models/{folder}/{entry['version']}")
        stateful = stateful or release.keeps_sequences(folder)
    arguments = tuple(str(item) for item in release.document["server"]["arguments"])
    return Bundle(release.digest, release.folder, files, folders, arguments, stateful, release.document)


def deliver(place: Place, bundle: Bundle, token: str, progress: Progress) -> dict[str, Any]:
    """Have ``snapshots/<release>`` on the target, whole; says how many bytes travelled.

    Raises:
        EnvironmentLacks: its disk has no room, or it cannot be reached.
        CheckFailed: files changed on the way, or the release here is not what it says.
    """
    wanted = {str(item["sha256"]): int(item["size"]) for item in bundle.files.values()}
    answer = place.call("missing", {"files": wanted})
    missing, size, free = answer["missing"], int(answer["bytes"]), int(answer["free"])
    if size + SPARE > free:
        raise EnvironmentLacks(
            f"{place.title} has no room for the release",
            expected=f"{(size + SPARE) / 1e6:,.0f} MB",
            found=f"{free / 1e6:,.0f} MB free",
            hint="free some space there; `retention` of the target says how many releases it keeps",
        )
    if missing:
        if bundle.folder is None:
            raise UsageError(
                f"the release {bundle.release[:12]} is neither here nor whole on the target",
                hint="build it, or import its bundle",
            )
        sources = _sources(bundle)
        absent = [digest for digest in missing if not sources[digest].is_file()]
        if absent:
            raise CheckFailed(f"the release lacks {sources[absent[0]]}", hint="`tritonforge build --force` repairs it")
        sent = 0

        def moved(part: int) -> None:
            nonlocal sent
            sent += part
            progress(f"sending {sent / 1e6:,.1f} of {size / 1e6:,.1f} MB")

        progress(f"sending {size / 1e6:,.1f} MB in {len(missing)} files")
        place.send({digest: sources[digest] for digest in missing}, moved)
        try:
            place.call("admit", {"files": missing}, timeout=3600.0)
        except AgentRefused as refused:
            if refused.code != "content":
                raise
            names = [str(sources[digest]) for digest in refused.facts.get("files", [])]
            raise CheckFailed(
                f"{len(names)} files did not arrive as the release names them",
                details=names[:5],
                hint="deploy again; when it happens again the release here is damaged: `tritonforge build --force`",
            ) from None
    said = place.call(
        "snapshot",
        {
            "token": token,
            "release": bundle.release,
            "files": {path: dict(item) for path, item in bundle.files.items()},
            "folders": list(bundle.folders),
        },
        timeout=600.0,
    )
    return {"bytes": size, "files": len(missing), "new": bool(said["new"])}


def _sources(bundle: Bundle) -> dict[str, Path]:
    assert bundle.folder is not None
    return {str(item["sha256"]): inside(bundle.folder, path) for path, item in bundle.files.items()}
