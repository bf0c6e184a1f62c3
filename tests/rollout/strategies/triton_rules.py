"""A model of Triton's rules for one live folder: what a load serves, and what that does to what stands on it.

Written from ``docs/user_guide/model_management.md`` and core ``model_lifecycle.cc``; the live tests hold the real
server to the same plans.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tritonforge.artifact.digest import digest_bytes
from tritonforge.repository.pbtxt import parse
from tritonforge.rollout.live_folder import Layout, arms_of
from tritonforge.rollout.live_folder_ops import Op


@dataclass
class Server:
    """``disk`` is config text, versions and files by folder, ``loaded`` what is served of it."""

    disk: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    loaded: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)

    def copy(self) -> Server:
        return copy.deepcopy(self)

    @staticmethod
    def serving(layout: Layout, order: Iterable[str]) -> Server:
        """A server that serves all of this."""
        made = Server()
        for name in order:
            folder = layout[name]
            versions = {str(number): dict(item) for number, item in folder.versions.items()}
            made.disk[name] = (folder.config, versions, {path: dict(item) for path, item in folder.files.items()})
            made.load(name)
        return made

    def do(self, op: Op) -> None:
        """One operation of the agent."""
        if not all(any(self.state(item["folder"]) == item["state"] for item in either) for either in op.get("if", [])):
            return
        getattr(self, f"do_{op['do']}")(op)

    def state(self, name: str) -> str:
        text, _, files = self.disk.get(name, ("", {}, {}))
        return digest_bytes(json.dumps([text, files], sort_keys=True).encode())

    def do_stage(self, op: Op) -> None:
        """Nothing that the server sees."""

    do_quiet = do_stage

    def do_put(self, op: Op) -> None:
        name = op["folder"]
        versions = dict(self.disk.get(name, ("", {}, {}))[1])
        for number, files in op["versions"].items():
            assert versions.get(number, files) == files, f"{name}: version {number} is rewritten"
            versions[number] = files
            taken = op.get("take")
            if taken is not None and number in self.disk.get(taken, ("", {}, {}))[1]:
                assert taken not in self.loaded, f"the files of {taken} are taken while it is loaded"
                del self.disk[taken][1][number]
        self.disk[name] = (op["config"], versions, op["files"])

    def do_load(self, op: Op) -> None:
        name = op["folder"]
        if self.loaded.get(name, ("", None))[0] != self.disk[name][0] or self.loaded[name][1] != set(op["versions"]):
            assert self.load(name), f"{name} does not load"
        assert self.loaded[name][1] == set(op["versions"]), f"{name} serves {self.loaded[name][1]}"

    def do_unload(self, op: Op) -> None:
        if self.loaded.pop(op["folder"], None) is not None:
            self.settle()

    def do_drop(self, op: Op) -> None:
        name = op["folder"]
        if name not in self.disk:
            return
        if op["versions"] is None:
            assert name not in self.loaded, f"{name} is deleted while it is loaded"
            del self.disk[name]
            return
        for number in op["versions"]:
            assert number not in self.loaded.get(name, ("", frozenset()))[1], f"{name}: {number} is deleted, and served"
            self.disk[name][1].pop(number, None)

    def load(self, name: str) -> bool:
        """Serve the versions that the config on disk names; all or nothing."""
        text, versions, _ = self.disk[name]
        message = parse(text)
        wanted = {str(number) for number in message.version_policy.specific.versions}
        if not wanted <= versions.keys():
            return False
        for step in message.ensemble_scheduling.step:
            if str(step.model_version) not in self.loaded.get(step.model_name, ("", frozenset()))[1]:
                return False
        self.loaded[name] = (text, frozenset(wanted))
        self.settle()
        return True

    def settle(self) -> None:
        """An ensemble one of whose members is gone is not available."""
        while True:
            broken = [name for name in self.loaded if not self.whole(name)]
            if not broken:
                return
            for name in broken:
                del self.loaded[name]

    def whole(self, name: str) -> bool:
        return all(
            str(step.model_version) in self.loaded.get(step.model_name, ("", frozenset()))[1]
            for step in parse(self.loaded[name][0]).ensemble_scheduling.step
        )

    def restart(self) -> None:
        """``--load-model=*``: everything that loads, whatever the order on disk."""
        self.loaded = {}
        while any(self.load(name) for name in self.disk if name not in self.loaded):
            pass

    def answers(self, name: str, version: str | None = None) -> bool:
        """Whether a client of that name gets an answer."""
        text, versions = self.loaded.get(name, ("", frozenset()))
        if not versions or (version is not None and version not in versions):
            return False
        return all(self.answers(str(arm["model"]), str(arm["version"])) for arm in arms_of(parse(text)))
