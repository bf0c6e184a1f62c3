"""One model's ``config.pbtxt``: derived from its signature, styled by a template, completed by the user's layers.

The result is complete, so that nothing is left to the server's auto-completion, holds only fields that the platform's
Triton knows, and can say of each value where it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import Place, SpecError
from tritonforge.repository import tree
from tritonforge.repository.checks import check
from tritonforge.repository.derive import derived_values
from tritonforge.repository.pbtxt import ModelConfig, parse, to_text
from tritonforge.repository.reading import from_message, read
from tritonforge.repository.request import ENSEMBLE, ConfigRequest, Layer
from tritonforge.repository.schema import supports
from tritonforge.repository.template import render
from tritonforge.spec.document import dotted
from tritonforge.spec.platform import Platform

# OpenVINO runs on CPUs here (its KIND_GPU means Intel's), vLLM places itself (its README: KIND_MODEL).
_KIND_OF_BACKEND: Final = {"openvino": "KIND_CPU", "vllm": "KIND_MODEL"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one value of a config came from: ``source`` is its layer's label, ``place`` a line where there is one."""

    path: str
    value: Any
    source: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class GeneratedConfig:
    """A config as a message, as the text of ``config.pbtxt``, and with the origin of every value."""

    message: ModelConfig
    text: str
    origins: tuple[Origin, ...]


def instance_kind(backend: str, platform: Platform) -> str:
    """The kind of instances that a platform gives a backend where nothing else is said."""
    return _KIND_OF_BACKEND.get(backend) or ("KIND_GPU" if platform.gpus > 0 else "KIND_CPU")


def generate(request: ConfigRequest) -> GeneratedConfig:
    """Make and check the config of one model.

    Raises:
        SpecError: a layer or the template is wrong, contradicts the signature, or asks for what the platform's Triton
            would refuse; with the place, what was expected and what was found.
    """
    layers = [(layer, read(layer.values, layer.label, layer.place)) for layer in request.layers]
    stated = _stated_batch(request, [node for _, node in layers])
    batched = request.signature.batched and (stated is None or stated.value != 0)
    styled = _styled(request, None if stated is None else int(stated.value), batched)
    largest = _largest_batch(request, stated, styled)
    batching = largest.value > 0 and request.signature.batched
    values = derived_values(
        request.name,
        request.backend,
        request.signature,
        batching=batching,
        reshape_scalars=request.reshape_scalars,
        model_filename=request.model_filename,
    )
    merged = read(values, "derived from the signature", lambda _: None)
    _keep_name(request, styled)
    merged = tree.merge(merged, styled)
    for _, node in layers:
        _keep_name(request, node)
        merged = tree.merge(merged, node)
    merged = _without_internal_tensors(merged)
    merged = _with_batch(merged, largest)
    if request.backend != ENSEMBLE:
        merged = _with_instances(merged, request)
    message = tree.to_message(merged)
    check(request, message, merged)
    origins = tuple(
        Origin(dotted(path), tree.plain(node), node.source.label, node.source.place)
        for path, node in tree.leaves(merged)
    )
    return GeneratedConfig(message, to_text(message), origins)


def _stated_batch(request: ConfigRequest, layers: list[tree.Node]) -> tree.Node | None:
    """The largest batch that the user said, in the model's own field or in a layer."""
    own = None
    if request.max_batch_size is not None:
        own = tree.Node(request.max_batch_size, tree.Source("max_batch_size", request.places.get("max_batch_size")))
    said = own
    for node in layers:
        found = tree.get(node, ("max_batch_size",))
        if found is None or found.value is None:
            continue
        if own is not None and found.value != own.value:
            raise SpecError(
                "`max_batch_size` is said twice, and differently",
                place=found.source.place,
                found=f"{found.value} in {found.source.label}, {own.value} in the model's own `max_batch_size`",
                hint="say it once",
            )
        said = found
    return said


def _largest_batch(request: ConfigRequest, stated: tree.Node | None, styled: tree.Node) -> tree.Node:
    if stated is not None:
        return stated
    chosen = tree.get(styled, ("max_batch_size",))
    if not request.signature.batched or chosen is None:
        return tree.Node(0, tree.Source("derived from the signature"))
    return chosen


def _styled(request: ConfigRequest, largest: int | None, batched: bool) -> tree.Node:
    """The template's layer."""
    ensemble = request.backend == ENSEMBLE
    shapes = derived_values(request.name, request.backend, request.signature, batching=batched)
    for key, tensors in (("input", request.signature.inputs), ("output", request.signature.outputs)):
        for item, tensor in zip(shapes[key], tensors, strict=True):
            item.update(optional=tensor.optional, ragged=tensor.ragged)
    rendered = render(
        "config",
        request.template,
        {
            "name": request.name,
            "backend": request.backend,
            "ensemble": ensemble,
            "batched": batched,
            "max_batch_size": largest,
            "inputs": shapes["input"],
            "outputs": shapes["output"],
            "instance_kind": instance_kind(request.backend, request.platform),
            "platform": request.platform.to_json(),
        },
        folders=request.template_folders,
        place=request.places.get("template"),
        functions={"supports": lambda path: supports(path, request.platform.triton)},
    )
    try:
        message = parse(rendered.text, rendered.file)
    except SpecError as error:
        # The line is one of the rendered text, which no file holds.
        line = None if error.place is None else error.place.line
        raise SpecError(
            f"the template '{request.template}' wrote no valid config: {error.message}",
            place=Place(rendered.file),
            found=error.found,
            hint=error.hint,
            details=[] if line is None else [f"in line {line} of what it wrote for '{request.name}'"],
        ) from None
    return from_message(message, f"template {rendered.label}", Place(rendered.file))


def _keep_name(request: ConfigRequest, node: tree.Node) -> None:
    name = tree.get(node, ("name",))
    if name is not None and name.value != request.name:
        raise SpecError(
            "a config's `name` is the name of its folder",
            place=name.source.place,
            expected=request.name,
            found=str(name.value),
            hint="leave `name` out; `folder:` names the folder",
        )


def _without_internal_tensors(merged: tree.Node) -> tree.Node:
    """Drop the derived tensors that Triton itself feeds or keeps: they are the model's, but no client's.

    Controls and states of sequences, batch inputs (Triton ``docs/user_guide``: ``architecture``, ``ragged_batching``).
    What a layer says of such a tensor keeps it, as for a state that clients shall be able to ask for.
    """
    values = tree.plain(merged)
    sequence = values.get("sequence_batching", {})
    states = sequence.get("state", [])
    inner = {
        "input": {item.get("name") for item in sequence.get("control_input", [])}
        | {item.get("input_name") for item in states}
        | {name for item in values.get("batch_input", []) for name in item.get("target_name", [])},
        "output": {item.get("output_name") for item in states},
    }
    kept = dict(merged.value)
    for side, names in inner.items():
        node = kept.get(side)
        if node is not None and names:
            said = [item.source.place is not None for item in node.value]
            items = [
                item for item, by in zip(node.value, said, strict=True) if by or item.value["name"].value not in names
            ]
            kept[side] = tree.Node(items, node.source)
    return tree.Node(kept, merged.source)


def _with_batch(merged: tree.Node, largest: tree.Node) -> tree.Node:
    return tree.Node({**merged.value, "max_batch_size": largest}, merged.source)


def _with_instances(merged: tree.Node, request: ConfigRequest) -> tree.Node:
    """At least one instance group, each with a kind and a count: nothing is left to what a server finds."""
    source = tree.Source(f"platform {request.platform.name}")
    kind = tree.Node(instance_kind(request.backend, request.platform), source)
    one = tree.Node(1, tree.Source("one instance unless more are said"))
    groups = merged.value.get("instance_group")
    if groups is None or not groups.value:
        groups = tree.Node([tree.Node({}, source)], source)
    filled = [tree.Node({"kind": kind, "count": one, **group.value}, group.source) for group in groups.value]
    return tree.Node({**merged.value, "instance_group": tree.Node(filled, groups.source)}, merged.source)


__all__ = ["ENSEMBLE", "ConfigRequest", "GeneratedConfig", "Layer", "Origin", "generate", "instance_kind"]
