"""Load a whole release into a server in explicit mode: models side by side, then what stands on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tritonforge.actions.live import LiveServer
from tritonforge.errors import CheckFailed, ForgeError
from tritonforge.repository.release import Release


@dataclass(frozen=True, slots=True)
class Loaded:
    """How one folder loaded. ``overridden`` when its instances had to be moved to the CPU; times in seconds."""

    folder: str
    published: Any
    overridden: bool = False
    error: ForgeError | None = None
    seconds: float = 0.0


def load_all(release: Release, server: LiveServer, progress: Callable[[str], None]) -> dict[str, Loaded]:
    """Load everything; a model that fails leaves the others loaded. In the order in which they were loaded."""

    def load(folder: str) -> Loaded:
        progress(f"{folder}: loading")
        clock = time.monotonic()
        published = release.config(folder)
        try:
            overridden = server.load(folder, published)
        except ForgeError as error:
            return Loaded(folder, published, error=error, seconds=time.monotonic() - clock)
        return Loaded(folder, published, overridden, seconds=time.monotonic() - clock)

    loaded: dict[str, Loaded] = {}
    order = load_order(release)
    alone = [entry["folder"] for entry in order if entry["kind"] == "model"]
    with ThreadPoolExecutor(max(2, len(os.sched_getaffinity(0)))) as pool:
        loaded.update(zip(alone, pool.map(load, alone), strict=True))
    for entry in order:
        if entry["folder"] not in loaded:
            loaded[entry["folder"]] = load(entry["folder"])
    return loaded


def load_or_fail(release: Release, server: LiveServer, progress: Callable[[str], None]) -> dict[str, Loaded]:
    """Load everything.

    Raises:
        CheckFailed: a model does not load; each is named with its reason.
    """
    loaded = load_all(release, server, progress)
    failed = [item for item in loaded.values() if item.error is not None]
    if failed:
        raise CheckFailed(
            f"{len(failed)} of {len(loaded)} models do not load",
            details=[str(item.error) for item in failed],
            hint="`tritonforge validate` tells more",
        )
    return loaded


def load_order(release: Release) -> list[Mapping[str, Any]]:
    """Models, then ensembles after their members, then routers."""
    entries = {entry["folder"]: entry for entry in release.models()}
    placed: dict[str, Mapping[str, Any]] = {}

    def place(folder: str, above: tuple[str, ...] = ()) -> None:
        if folder in placed or folder in above or folder not in entries:
            return
        entry = entries[folder]
        if entry["kind"] == "ensemble":
            for step in release.config(folder).ensemble_scheduling.step:
                place(step.model_name, (*above, folder))
        if entry["kind"] == "router":
            for other in entries.values():
                if other["name"] == entry["name"] and other["folder"] != folder:
                    place(other["folder"], (*above, folder))
        placed[folder] = entry

    for folder in entries:
        place(folder)
    return list(placed.values())
