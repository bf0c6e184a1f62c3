"""Hold what a server says of a model against the config that was published."""

from __future__ import annotations

from typing import Any

from tritonforge.artifact.datatypes import BY_CONFIG
from tritonforge.triton.client import Client, Protocol


def served_differently(client: Client, folder: str, version: int, published: Any, *, overridden: bool) -> list[str]:
    """What the server says of a model that its config does not; ``overridden`` leaves instances out."""
    problems = []
    served = client.model_metadata(folder, str(version))
    if str(version) not in served["versions"]:
        problems.append(f"version {version} is not served, but {', '.join(served['versions'])}")
    batch = [-1] if published.max_batch_size > 0 else []
    for what, tensors in (("input", published.input), ("output", published.output)):
        found = {item["name"]: item for item in served[f"{what}s"]}
        wanted = {item.name: item for item in tensors}
        if not tensors:
            continue  # a config that was given leaves them to the server's auto-completion
        for name in sorted(found.keys() ^ wanted.keys()):
            problems.append(f"{what} '{name}' is {'not served' if name in wanted else 'served but not published'}")
        for name in sorted(found.keys() & wanted.keys()):
            config, said = wanted[name], found[name]
            if not config.data_type or not config.dims:
                continue
            datatype = BY_CONFIG[
                type(config).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[config.data_type].name
            ]
            shape = [*batch, *config.dims]
            if said["datatype"] != datatype.name:
                problems.append(f"{what} '{name}' is served as {said['datatype']}, published as {datatype.name}")
            if [int(size) for size in said["shape"]] != shape:
                problems.append(f"{what} '{name}' is served with shape {said['shape']}, published with {shape}")
    return problems + config_served_differently(client, folder, version, published, overridden=overridden)


def config_served_differently(
    client: Client,
    folder: str,
    version: int,
    published: Any,
    *,
    overridden: bool = False,
    protocol: Protocol | None = None,
) -> list[str]:
    """What the config that the server holds differs in from the published one; ``overridden`` leaves instances out."""
    config = client.model_config(folder, str(version), protocol=protocol)
    return _config_problems(published, config, skip={"instance_group", "optimization"} if overridden else set())


def _config_problems(published: Any, served: Any, skip: set[str]) -> list[str]:
    """Fields that the config sets and the server holds differently. What the server fills in by itself is its own."""
    problems = []
    for descriptor, value in published.ListFields():
        name = descriptor.name
        if name in skip:
            continue
        other = getattr(served, name)
        if name == "instance_group":
            # The server gives groups names; the rest must be as published.
            for group, found in zip(value, other, strict=False):
                # KIND_AUTO, which is 0, stands for what the server finds.
                if (group.kind and group.kind != found.kind) or (group.count and group.count != found.count):
                    problems.append(f"instance_group is served as {found.count} × kind {found.kind}")
            continue
        if name in ("input", "output") and not all(item.data_type and item.dims for item in value):
            continue
        if name in ("optimization", "dynamic_batching", "sequence_batching", "oldest", "direct", "ensemble_scheduling"):
            problems += [f"{name}: {text}" for text in _config_problems(value, other, set())]
            continue
        if value != other:
            problems.append(f"{name} is served as {_brief(other)}, published as {_brief(value)}")
    return problems


def _brief(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "…"
