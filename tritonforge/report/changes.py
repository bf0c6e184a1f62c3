"""What a release changes against the one before it, and why each step behind it had to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tritonforge.report.document import Changes

Status = Literal["new", "changed", "unchanged", "unknown"]


def previous_release(history: Sequence[Mapping[str, str]], digest: str) -> str | None:
    """The digest that was current before ``digest`` last became so."""
    order = [entry["release"] for entry in history]
    if digest not in order:
        return None
    last = len(order) - 1 - order[::-1].index(digest)
    return next((other for other in reversed(order[:last]) if other != digest), None)


def changes(previous: str | None, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Changes:
    """The difference of two ``release.json`` documents, in words."""
    if previous is None:
        return Changes(None, ("the first release of this platform",))
    if before is None:
        return Changes(previous, ("the previous release is no longer kept, so the two cannot be compared",))
    old = {entry["folder"]: entry for entry in before["models"]}
    new = {entry["folder"]: entry for entry in now["models"]}
    lines: list[str] = []
    for folder in sorted({*old, *new}):
        lines += _model(folder, old.get(folder), new.get(folder))
    for field, said in (("platform", "the platform"), ("server", "the server's arguments"), ("golden", "golden cases")):
        if before.get(field) != now.get(field):
            lines.append(f"{said} changed")
    return Changes(previous, tuple(lines) or ("nothing that is served changed",))


def _model(folder: str, was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    if was is None:
        return [f"{folder} is new" if now is None else f"{folder} is new (version {now['version']})"]
    if now is None:
        return [f"{folder} is gone (it had version {was['version']})"]
    lines = []
    if was["artifact"] != now["artifact"]:
        lines.append(f"{folder}: version {was['version']} → {now['version']}, another artefact")
    elif was["version"] != now["version"]:
        lines.append(f"{folder}: version {was['version']} → {now['version']}, the same artefact")
    if was["backend"] != now["backend"]:
        lines.append(f"{folder}: backend {was['backend']} → {now['backend']}")
    if was["config"] != now["config"]:
        lines.append(f"{folder}: config.pbtxt changed")
    return lines


def step_status(
    step: Mapping[str, Any], before: Mapping[str, Any] | None, previous: str | None, *, kept: bool
) -> tuple[Status, tuple[str, ...]]:
    """Whether a step's key is that of the previous release, and what of it is not.

    ``before`` is the same step there, None where it had none; ``kept`` whether that release is still on disk.
    """
    if previous is None:
        return "new", ()
    if not kept:
        return "unknown", ("the previous release is no longer kept",)
    if before is None:
        return "new", ("the previous release did not have it",)
    if before["key"] == step["key"]:
        return "unchanged", ()
    reasons = [*_differences("source", before["sources"], step["sources"], short=True)]
    reasons += _differences("tool", before["tools"], step["tools"], short=False)
    return "changed", tuple(reasons) or ("its configuration, or a step before it, changed",)


def _differences(what: str, before: Mapping[str, str], now: Mapping[str, str], *, short: bool) -> Iterable[str]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old is None:
            yield f"{what} {name} is new"
        elif new is None:
            yield f"{what} {name} is gone"
        elif old != new:
            yield f"{what} {name} changed: {old[:8] if short else old} → {new[:8] if short else new}"


def same_steps(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Steps of a model by name and by how many of that name stand before, so that two releases' can be paired."""
    seen: dict[str, int] = {}
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for entry in entries:
        position = seen.get(entry["step"], 0)
        seen[entry["step"]] = position + 1
        found[entry["step"], position] = entry
    return found
