"""Routers: a small Python model that owns a public name and hands each request to the model behind it.

What stands behind it is said by the config's parameters alone, so that another arm, another version or other weights
are a changed config and no new version of the router. Source: Triton's ``python_backend`` README, "Business Logic
Scripting": requests to other models from within the server, without the network.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place, SpecError
from tritonforge.repository.request import ConfigRequest, Layer
from tritonforge.repository.template import exists, render
from tritonforge.spec.platform import Platform

_HOUSE_CONFIG = "routers/bls/config.pbtxt.j2"


@dataclass(frozen=True, slots=True)
class Arm:
    """A model behind a router: its folder, the version that is asked for (None: the newest), its share of requests."""

    folder: str
    version: int | None = None
    weight: int = 100


@dataclass(frozen=True, slots=True)
class RenderedRouter:
    """A router: the files of its version folder, and the request for its config (layers of the user's may be added)."""

    files: Mapping[str, bytes]
    request: ConfigRequest


def arms_parameter(arms: Sequence[Arm]) -> str:
    """The value of the config's parameter ``arms``: JSON, read again by the router when it is loaded."""
    items = [
        {"model": arm.folder, "version": -1 if arm.version is None else arm.version, "weight": arm.weight}
        for arm in arms
    ]
    return json.dumps(items, sort_keys=True)


def render_router(
    public_name: str,
    arms: Sequence[Arm],
    signature: Signature,
    max_batch_size: int,
    platform: Platform,
    *,
    template: str = "bls",
    template_folders: tuple[Path, ...] = (),
    layers: tuple[Layer, ...] = (),
    decoupled: bool = False,
    place: Place | None = None,
) -> RenderedRouter:
    """Make the router ``public_name`` for its arms.

    ``signature`` and ``max_batch_size`` are what clients of the arms see (``served_signature``); the router's are the
    same. A request of a sequence goes to the arm that its correlation id always goes to.

    Raises:
        SpecError: the model is decoupled, there are no arms or no weight, an arm is the router itself, or the template
            does not write Python.
    """
    if decoupled:
        raise SpecError(
            f"'{public_name}' is decoupled and cannot stand behind a router",
            place=place,
            hint="a router answers each request once; leave `router` out",
        )
    if not arms or sum(arm.weight for arm in arms) <= 0 or any(arm.weight < 0 for arm in arms):
        raise SpecError(
            f"the router '{public_name}' has nowhere to send requests",
            place=place,
            expected="at least one arm, weights of 0 or more, and one above 0",
            found=arms_parameter(arms),
        )
    if any(arm.folder == public_name for arm in arms):
        raise SpecError(
            f"the router '{public_name}' would ask itself", place=place, expected="an arm in a folder of another name"
        )
    rendered = render(
        "routers",
        template,
        {"name": public_name, "platform": platform.to_json(), "batched": max_batch_size > 0},
        folders=template_folders,
        place=place,
    )
    try:
        ast.parse(rendered.text)
    except SyntaxError as error:
        raise SpecError(
            f"the router template '{template}' wrote no valid Python: {error.msg}",
            place=Place(rendered.file),
            found=(error.text or "").strip() or None,
        ) from None
    own_config = f"routers/{template}/config.pbtxt.j2"
    parameters = Layer("router", {"parameters": {"arms": arms_parameter(arms)}}, lambda _: place or Place())
    request = ConfigRequest(
        name=public_name,
        backend="python",
        signature=signature,
        platform=platform,
        max_batch_size=max_batch_size,
        template=own_config if exists(own_config, template_folders) else _HOUSE_CONFIG,
        layers=(parameters, *layers),
        template_folders=template_folders,
        reshape_scalars=False,
    )
    return RenderedRouter({"model.py": rendered.text.encode()}, request)
