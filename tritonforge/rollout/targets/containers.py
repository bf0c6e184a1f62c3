"""Containers of a target as they are: found by name, told apart by labels, read, and ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.host import ServerStatus
from tritonforge.triton import serverlog

TARGET: Final = "tritonforge.target"
"""The label that says whose a container, a volume or a network is."""
ROLE: Final = "tritonforge.role"
FINGERPRINT: Final = "tritonforge.fingerprint"
RELEASE: Final = "tritonforge.release"
IMAGE: Final = "tritonforge.image"
PUBLIC: Final = "tritonforge.public"
"""On a server that clients reach without a proxy."""

ROOT: Final = "/tritonforge"
"""Where the target's volume stands in every container."""
TRITON_PORTS: Final = (8000, 8001, 8002)
"""HTTP, gRPC and metrics inside a container."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the things of one target are called in its engine."""

    instance: str

    @property
    def prefix(self) -> str:
        return f"tritonforge-{self.instance}"

    @property
    def mark(self) -> tuple[str, str]:
        """The label that the target's volumes have, and its value."""
        return (TARGET, self.instance)

    @property
    def volume(self) -> str:
        """Journal, releases: everything that outlives containers."""
        return self.prefix

    @property
    def proxy_volume(self) -> str:
        """The proxy's settings and control socket; servers do not see it."""
        return f"{self.prefix}-proxy"

    @property
    def network(self) -> str:
        return self.prefix

    def container(self, role: str) -> str:
        """``blue``, ``green``, ``proxy`` or ``keeper``."""
        return f"{self.prefix}-{role}"

    def labels(self, role: str) -> dict[str, str]:
        return {TARGET: self.instance, ROLE: role}


def find(client: Any, name: str) -> Any | None:
    """The container of that name, as it is now."""
    import docker.errors

    try:
        return client.containers.get(name)
    except docker.errors.NotFound:
        return None


def find_ours(client: Any, names: Names, role: str) -> Any | None:
    """The target's container for ``role``.

    Raises:
        CheckFailed: something else has its name.
    """
    name = names.container(role)
    found = find(client, name)
    if found is not None and found.labels.get(TARGET) != names.instance:
        raise CheckFailed(
            f"the container {name} is not of this target",
            expected=f"the label {TARGET}={names.instance}",
            found=found.labels.get(TARGET) or "no such label",
            hint="remove or rename it, or give the target another `name`",
        )
    return found


def status_of(container: Any | None) -> ServerStatus:
    """What a server's container does."""
    if container is None:
        return ServerStatus(False, words="not started")
    labels, state = container.labels, container.attrs["State"]
    restarts, words = int(container.attrs.get("RestartCount") or 0), str(state["Status"])
    ended = f"with {state.get('ExitCode')}" + (" (out of memory)" if state.get("OOMKilled") else "")
    if words == "running":
        words = f"running since {_short(state.get('StartedAt'))}"
    elif words == "restarting":
        words = f"restarts; it ended {ended}"
    elif words in ("exited", "dead"):
        words = f"ended {ended} at {_short(state.get('FinishedAt'))}"
    if restarts:
        words += f", restarted {restarts} times"
    return ServerStatus(
        state["Status"] == "running",
        labels.get(FINGERPRINT),
        labels.get(RELEASE),
        labels.get(IMAGE) or container.attrs.get("Image"),
        _short(state.get("StartedAt")) or None,
        restarts,
        words + (f": {state['Error']}" if state.get("Error") else ""),
    )


def published(container: Any) -> dict[int, int] | None:
    """Its ports on the engine's machine by the port inside; None while it has none, as when it does not run."""
    found = {}
    for inside, bound in (container.attrs["NetworkSettings"]["Ports"] or {}).items():
        if bound:
            found[int(inside.partition("/")[0])] = int(bound[0]["HostPort"])
    return found or None


def private_ports(client: Any, names: Names, role: str, seconds: float = 10.0) -> Mapping[int, int]:
    """The published ports of a server that runs, or is about to; empty when it does neither."""
    ends = time.monotonic() + seconds
    while True:
        container = find_ours(client, names, role)
        ports = None if container is None else published(container)
        if ports is not None and all(port in ports for port in TRITON_PORTS[:2]):
            return ports
        if container is None or container.status not in ("running", "restarting") or time.monotonic() > ends:
            return {}
        time.sleep(0.1)


def log_end(container: Any) -> list[str]:
    """Why a server ended, as its log says last."""
    import docker.errors

    try:
        text = container.logs(tail=200).decode("utf-8", "replace")
    except (docker.errors.DockerException, OSError):
        return []
    failures = serverlog.load_failures(text)
    if failures:
        return [f"{model}: {reason}" for model, reason in sorted(failures.items())]
    return list(serverlog.last_errors(text)) or text.splitlines()[-3:]


def log_lines(container: Any | None, tail: int, follow: bool) -> Iterator[str]:
    """Lines of a container's log, oldest first."""
    if container is None:
        return
    rest = b""
    for chunk in container.logs(stream=True, follow=follow, tail=tail):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace")


def halt(container: Any, grace: float) -> None:
    """Have it ended: asked, then killed after ``grace`` seconds. What it was and its log stay."""
    import docker.errors

    with suppress(docker.errors.NotFound):
        container.stop(timeout=max(0, round(grace)))


def discard(container: Any, grace: float = 0.0) -> None:
    """Have it ended and gone.

    Raises:
        EnvironmentLacks: the engine does not get it away.
    """
    import docker.errors

    if grace and container.status in ("running", "restarting", "paused"):
        halt(container, grace)
    ends = time.monotonic() + 30
    while True:
        try:
            container.remove(force=True)
            return
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # 409: somebody is removing it already.
            if error.status_code != 409 or time.monotonic() > ends:
                raise
            time.sleep(0.1)
            try:
                container.reload()
            except docker.errors.NotFound:
                return


def require_room_for_names(names: Names) -> None:
    """Refuse names that the engine's name server could not tell: a label has 63 letters at most (RFC 1035, 2.3.4).

    Raises:
        EnvironmentLacks: the target's name is too long.
    """
    if len(names.container("keeper")) > 63:
        raise EnvironmentLacks(
            "the target's name is too long for the names of its containers",
            expected="40 letters at most",
            found=names.instance,
            hint="give the target a shorter `name`",
        )


def _short(when: str | None) -> str:
    """``2026-01-02T03:04:05Z`` of the engine's nanoseconds."""
    text = (when or "").partition(".")[0]
    return "" if not text or text.startswith("0001") else text.rstrip("Z") + "Z"
