"""What a pod does, in words, from the API's account of it; and whether it can ever become ready by itself.

Reasons are those of the kubelet (pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go) and of the
scheduler (condition PodScheduled).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

HOPELESS: Final = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""Why a container waits that somebody else must put right. ErrImagePull is not one of them: it is tried again at once,
and ImagePullBackOff follows."""
_RESTARTS: Final = 2
"""A container that was started anew more often without ever becoming ready is taken for one that crashes."""
STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class PodState:
    """One pod. ``hopeless``: it never becomes ready by itself. ``unplaced``: no node takes it now. ``ran``: one of its
    containers was started."""

    name: str
    uid: str
    ip: str | None
    ready: bool
    leaving: bool
    ran: bool
    hopeless: bool
    unplaced: bool
    restarts: int
    image: str | None
    started: str | None
    words: str
    annotations: Mapping[str, str]


def pod_state(pod: Mapping[str, Any], warning: str | None = None) -> PodState:
    """Read a pod; ``warning`` is the last warning that the cluster gave about it, for one that hangs."""
    meta, status = pod["metadata"], pod.get("status", {})
    containers = status.get("containerStatuses") or []
    every = [*(status.get("initContainerStatuses") or []), *containers]
    conditions = {item["type"]: item for item in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    unplaced = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    running = next((item["state"]["running"] for item in containers if "running" in item.get("state", {})), None)
    waiting = next((item for item in every if "waiting" in item.get("state", {})), None)
    leaving = "deletionTimestamp" in meta
    phase = str(status.get("phase") or "Pending")
    ready = conditions.get("Ready", {}).get("status") == "True" and not leaving
    restarts = max((int(item.get("restartCount") or 0) for item in containers), default=0)
    words, hopeless = phase.lower(), False
    if leaving:
        words = "ending"
    elif phase == "Failed":
        words = "; ".join(item for item in (status.get("reason"), status.get("message")) if item) or "failed"
        words = _with_end(words, every)
        hopeless = True
    elif unplaced:
        words = f"no node takes it: {scheduled.get('message')}"
    elif waiting is not None:
        reason = str(waiting["state"]["waiting"].get("reason") or "waiting")
        hopeless = reason in HOPELESS
        words = _waiting(reason, waiting, warning)
    elif restarts > _RESTARTS and not ready:
        # Between two starts it waits for its next one, and says so only then.
        words, hopeless = _with_end(f"restarted {restarts} times", containers), True
    elif running is not None:
        words = f"{'running' if ready else 'running, not ready yet,'} since {running.get('startedAt')}"
        words = words if ready or not restarts else _with_end(words, containers)
    elif restarts or any("terminated" in item.get("state", {}) for item in containers):
        words = _with_end("about to be started again", containers)
    return PodState(
        str(meta["name"]),
        str(meta.get("uid")),
        status.get("podIP"),
        ready,
        leaving,
        any(_ran(item) for item in every),
        hopeless,
        unplaced,
        restarts,
        image_run(containers[0]) if containers else None,
        None if running is None else running.get("startedAt"),
        words,
        meta.get("annotations") or {},
    )


def image_run(container: Mapping[str, Any]) -> str | None:
    """The image that a container really runs: ``REPOSITORY@sha256:…``; the node's own id where it was never pulled."""
    said = str(container.get("imageID") or "")
    return said.partition("://")[2] or said or None


def image_in_words(noted: str | None, pod: PodState | None) -> str | None:
    """The image that really runs, in the words of its start where it is the same."""
    if pod is None or pod.image is None:
        return None
    digest = pod.image.partition("@")[2]
    if noted and (not digest or "@" not in noted or noted.endswith(digest)):
        return noted
    return pod.image


def slot_words(pods: Iterable[PodState]) -> str:
    """Several pods in one line: those that are not ready first."""
    found = list(pods)
    if not found:
        return "no pod yet"
    bad = [f"{pod.name}: {pod.words}" for pod in found if not pod.ready]
    if not bad:
        return found[0].words if len(found) == 1 else f"{len(found)} pods, {found[0].words}"
    return "; ".join(bad)


def _waiting(reason: str, container: Mapping[str, Any], warning: str | None) -> str:
    said = container["state"]["waiting"].get("message")
    words = f"{reason}: {said}" if said else reason
    if "ImagePull" in reason and str(container.get("image")) not in words:
        words = f"{reason} of {container.get('image')}" + (f": {said}" if said else "")
    if reason == "CrashLoopBackOff":
        words = _with_end(reason, [container])
    elif reason in STARTING and warning:
        words = f"{reason}: {warning}"
    return words


def _with_end(words: str, containers: Iterable[Mapping[str, Any]]) -> str:
    """With how a container ended last: its signal or exit code, and what it said."""
    for item in containers:
        ended = item.get("state", {}).get("terminated") or item.get("lastState", {}).get("terminated")
        if not ended or not (ended.get("exitCode") or ended.get("signal")):
            continue
        how = f"exited with {ended.get('exitCode')}"
        if ended.get("reason") not in (None, "Error"):
            how += f" ({ended['reason']})"
        said = str(ended.get("message") or "").strip().splitlines()
        return f"{words}; {item.get('name')} {how}" + (f": {said[-1]}" if said else "")
    return words


def _ran(container: Mapping[str, Any]) -> bool:
    return any(key in container.get(when, {}) for when in ("state", "lastState") for key in ("running", "terminated"))
