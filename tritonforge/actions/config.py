"""``config show``: a model's config and where each field of it came from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tritonforge.actions.compose import Composer, folder_name
from tritonforge.actions.workspace import Workspace
from tritonforge.build.key import key_of
from tritonforge.build.planning import plan_graph
from tritonforge.build.scheduler import NodeResult, inputs_of
from tritonforge.errors import UsageError, did_you_mean
from tritonforge.repository.config import GeneratedConfig
from tritonforge.spec.lock import read_lock


@dataclass(frozen=True, slots=True)
class ShownConfig:
    """The config that the spec gives now; ``folder`` is where a build would write it."""

    folder: str
    config: GeneratedConfig

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "text": self.config.text,
            "fields": [
                {"path": o.path, "value": o.value, "from": o.source, "place": None if o.place is None else str(o.place)}
                for o in self.config.origins
            ],
        }


def show_config(workspace: Workspace, name: str, platform_name: str | None) -> ShownConfig:
    """Generate the config of one model, ensemble, router or folder.

    Raises:
        UsageError: the spec has no such model, or what it is derived from was not built yet.
        SpecError: the config is wrong.
    """
    platform = workspace.platform(platform_name)
    servables = workspace.loaded.spec.servables()
    folders = {folder_name(key, member): key for key, member in servables.items()}
    if name not in servables and name not in folders:
        raise UsageError(f"the spec has no model '{name}'", hint=did_you_mean(name, [*servables, *folders]))
    lock = copy.deepcopy(read_lock(workspace.lock_path))
    graph = plan_graph(workspace.loaded, platform, workspace.resolver(lock))
    for error in graph.errors.values():
        raise error
    results: dict[str, NodeResult] = {}
    for node in graph.nodes.values():
        keyed = key_of(node, inputs_of(node, results))
        record = workspace.store.known(keyed.key)
        if record is None:
            raise UsageError(
                f"'{node.model}' was not built since it changed: its signature is not known",
                hint="run `tritonforge build` first",
            )
        results[node.id] = NodeResult(node, "cached", keyed.key, record.artifact, keyed.material)
    composer = Composer(workspace, platform, lock, graph, results)
    composer.compose()
    configs = composer.configs()
    folder = name if name in configs else folder_name(name, servables[name])
    if folder not in configs:
        raise UsageError(f"'{name}' is not built for the platform {platform.name}")
    return ShownConfig(folder, configs[folder])
