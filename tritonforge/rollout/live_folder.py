"""What a live folder holds when a release is served in place: each model's folder with the config that it has there.

A live config is the released one, but for its version policy, which names the served versions: the config is then what
switches, and a version that is on disk beside them is not served, whatever its number is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonforge.artifact.digest import digest_bytes
from tritonforge.repository.pbtxt import parse, to_text

Files = Mapping[str, Mapping[str, Any]]
"""Path → sha256 and size."""


@dataclass(frozen=True, slots=True)
class LiveFolder:
    """One model as the live folder holds it. ``kind`` is ``model``, ``ensemble`` or ``router``; ``message`` is the
    config as a ``ModelConfig``, ``config`` its text; ``files`` stand beside the versions."""

    name: str
    kind: str
    message: Any
    config: str
    versions: Mapping[int, Files]
    files: Files

    @property
    def digest(self) -> str:
        """The sha256 of the config's text."""
        return digest_bytes(self.config.encode())

    @property
    def state(self) -> str:
        """What the agent tells it by from how it was before: its config, which names the versions, and its files."""
        files = {path: dict(item) for path, item in self.files.items()}
        return digest_bytes(json.dumps([self.config, files], sort_keys=True).encode())

    @property
    def numbers(self) -> list[str]:
        """The served versions, as Triton's index writes them."""
        return sorted(str(version) for version in self.versions)

    @property
    def parts(self) -> frozenset[str]:
        """The folders that it hands requests to."""
        if self.kind == "router":
            return frozenset(str(arm["model"]) for arm in arms_of(self.message))
        return frozenset(step.model_name for step in self.message.ensemble_scheduling.step)

    def equals(self, other: LiveFolder) -> bool:
        """Whether a server would serve the same of both."""
        return (
            self.config == other.config
            and self.files == other.files
            and {number: dict(files) for number, files in self.versions.items()}
            == {number: dict(files) for number, files in other.versions.items()}
        )


Layout = Mapping[str, LiveFolder]


def layout_of(
    models: Iterable[Mapping[str, Any]], files: Files, folders: Sequence[str], configs: Mapping[str, str]
) -> dict[str, LiveFolder]:
    """The live folder of a release: the versions that it serves. A given repository may hold others, which stay out.

    ``models`` are its entries, ``files`` all of its files by path below the release, ``folders`` those of its versions
    (some have no file), ``configs`` the text of each folder's config.
    """
    models = list(models)
    kinds = {str(entry["folder"]): str(entry["kind"]) for entry in models}
    versions: dict[str, dict[int, dict[str, Mapping[str, Any]]]] = {name: {} for name in kinds}
    beside: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in kinds}
    for path in folders:
        _, name, number = path.split("/")
        versions[name].setdefault(int(number), {})
    for entry in models:
        versions[str(entry["folder"])].setdefault(int(entry["version"]), {})
    for path, item in files.items():
        _, name, rest = path.split("/", 2)
        top, _, inner = rest.partition("/")
        if inner and top.isdigit() and top[0] != "0":  # what begins with a zero is no version to Triton
            if int(top) in versions[name]:
                versions[name][int(top)][inner] = _file(item)
        elif rest != "config.pbtxt":
            beside[name][rest] = _file(item)
    found = {}
    for name, kind in kinds.items():
        message = parse(configs[name])
        message.name = name
        found[name] = live_folder(name, kind, message, versions[name], beside[name])
    return found


def live_folder(name: str, kind: str, message: Any, versions: Mapping[int, Files], files: Files) -> LiveFolder:
    """A folder whose config serves exactly ``versions``."""
    served = copy_of(message)
    served.name = name
    served.version_policy.specific.versions[:] = sorted(versions)
    return LiveFolder(name, kind, served, to_text(served), versions, files)


def renamed(folder: LiveFolder, name: str, names: Mapping[str, str]) -> LiveFolder:
    """The same under another name, with its parts under theirs: a candidate.

    A router's instances are only processes that wait; a candidate that nobody but its proof asks needs one.
    """
    message = copy_of(folder.message)
    for step in message.ensemble_scheduling.step:
        step.model_name = names.get(step.model_name, step.model_name)
    if folder.kind == "router":
        message = with_arms(
            message, [{**arm, "model": names.get(arm["model"], arm["model"])} for arm in arms_of(message)]
        )
        for group in message.instance_group:
            group.count = 1
    return live_folder(name, folder.kind, message, folder.versions, folder.files)


def redirected(router: LiveFolder, arms: Sequence[Mapping[str, Any]]) -> LiveFolder:
    """A router with other arms and nothing else changed."""
    message = with_arms(router.message, arms)
    return live_folder(router.name, router.kind, message, router.versions, router.files)


def arms_of(message: Any) -> list[dict[str, Any]]:
    """The arms of a router's config (``repository/router.py``)."""
    if "arms" not in message.parameters:
        return []
    return [dict(arm) for arm in json.loads(message.parameters["arms"].string_value)]


def with_arms(message: Any, arms: Sequence[Mapping[str, Any]]) -> Any:
    """A copy of a router's config with these arms."""
    changed = copy_of(message)
    changed.parameters["arms"].string_value = json.dumps([dict(arm) for arm in arms], sort_keys=True)
    return changed


def copy_of(message: Any) -> Any:
    """A message of its own."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def said_by(message: Any) -> dict[str, Any]:
    """What a config says, as JSON: the server must say all of it."""
    from google.protobuf import json_format

    said: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return said


def in_order(layout: Layout, names: Iterable[str]) -> list[str]:
    """Parts before what stands on them."""
    wanted, placed = set(names), dict[str, None]()

    def place(name: str, above: tuple[str, ...] = ()) -> None:
        if name in placed or name in above or name not in layout:
            return
        for part in sorted(layout[name].parts):
            place(part, (*above, name))
        placed[name] = None

    for name in sorted(layout):
        place(name)
    return [name for name in placed if name in wanted]


def _file(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"sha256": str(item["sha256"]), "size": int(item["size"])}
