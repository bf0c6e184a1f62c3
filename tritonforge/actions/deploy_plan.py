"""What a deployment would change, exactly: versions, config fields, files, image, arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonforge.actions.targets import OpenTarget, Snapshot
from tritonforge.rollout.host import Bundle, ServerStart
from tritonforge.rollout.journal import TargetState


@dataclass(frozen=True, slots=True)
class ModelChange:
    """One folder: ``kind`` is ``added``, ``removed`` or ``changed``; ``what`` names the differences."""

    folder: str
    kind: str
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The differences between what serves and what shall serve. ``bytes`` travel; None: the target was not asked."""

    models: tuple[ModelChange, ...]
    server: tuple[str, ...]
    bytes: int | None = None
    files: int | None = None
    steps: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not self.models and not self.server

    def to_json(self) -> dict[str, Any]:
        return {
            "models": [{"folder": item.folder, "kind": item.kind, "what": list(item.what)} for item in self.models],
            "server": list(self.server),
            "bytes": self.bytes,
            "files": self.files,
            "steps": list(self.steps),
        }


def plan_of(target: OpenTarget, snapshot: Snapshot, bundle: Bundle, start: ServerStart) -> Plan:
    """The plan, with what would have to travel."""
    found = changes_between(snapshot.state, bundle, start)
    wanted = {str(item["sha256"]): int(item["size"]) for item in bundle.files.values()}
    answer = target.host.place.call("missing", {"files": wanted})
    return Plan(found.models, found.server, int(answer["bytes"]), len(answer["missing"]))


def changes_between(state: TargetState, bundle: Bundle, start: ServerStart) -> Plan:
    """What differs between the committed release and the bundle; images are compared where both are known."""
    committed = state.committed
    there: Mapping[str, Any] = {} if committed is None else committed["slots"][committed["active"]]
    before = {item["folder"]: item for item in there.get("document", {}).get("models", [])}
    after = {str(item["folder"]): item for item in bundle.document.get("models", [])}
    models = [
        ModelChange(name, "added", (f"version {after[name]['version']}",)) for name in sorted(after.keys() - before)
    ]
    models += [ModelChange(name, "removed", ()) for name in sorted(before.keys() - after.keys())]
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        what = []
        if old["version"] != new["version"]:
            what.append(f"version {old['version']} → {new['version']}")
        elif old["artifact"] != new["artifact"]:
            what.append(f"artifact {old['artifact'][:12]} → {new['artifact'][:12]}")
        if old["backend"] != new["backend"]:
            what.append(f"backend {old['backend']} → {new['backend']}")
        if old["config"] != new["config"]:
            what.append("config.pbtxt")
        if what:
            models.append(ModelChange(name, "changed", tuple(what)))
    server = []
    if there:
        if list(there["arguments"]) != list(start.arguments):
            gone = [f"- {item}" for item in there["arguments"] if item not in start.arguments]
            server += [*gone, *(f"+ {item}" for item in start.arguments if item not in there["arguments"])]
        if start.image is not None and there["image"] != start.image:
            server.append(f"image {there['image']} → {start.image}")
        settings = dict(start.settings or {})
        for key in sorted({*there["settings"], *settings}):
            if there["settings"].get(key) != settings.get(key):
                server.append(f"{key}: {there['settings'].get(key)} → {settings.get(key)}")
    return Plan(tuple(models), tuple(server))
