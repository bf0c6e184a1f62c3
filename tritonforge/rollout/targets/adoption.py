"""A Triton that ran before tritonforge came, taken into a slot with nothing restarted.

Its container joins the target's network under the slot's name, so the proxy finds it like any other server. It stays
whoever's it is: it is never stopped or removed, only left when its slot is needed for something else.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from tritonforge.errors import EnvironmentLacks, UsageError
from tritonforge.rollout.host import ServerStart, ServerStatus
from tritonforge.rollout.targets.containers import TARGET, TRITON_PORTS, Names, find, published, status_of

_MARK: Final = "adopted-"


def foreign_container(client: Any, name: str) -> Any:
    """The running Triton container called ``name``.

    Raises:
        UsageError: there is none, it does not run, or it is one of tritonforge's own.
        EnvironmentLacks: it cannot be asked from here.
    """
    container = find(client, name)
    if container is None or container.status != "running":
        running = ", ".join(sorted(item.name for item in client.containers.list())[:10])
        raise UsageError(f"there is no running container '{name}'", found=f"running: {running or 'none'}")
    words = [*(container.attrs["Config"].get("Entrypoint") or []), *(container.attrs["Config"].get("Cmd") or [])]
    if any(str(word).startswith("--model-control-mode=poll") for word in words):
        raise UsageError(f"'{name}' polls its repository, so what it serves can change at any time", hint="restart it")
    for flag in ("--http-port", "--grpc-port", "--metrics-port"):
        if any(str(word).startswith(flag) for word in words):
            raise EnvironmentLacks(
                f"'{name}' listens on ports of its own choosing", expected=f"Triton's: {TRITON_PORTS}", found=flag
            )
    ports = published(container) or {}
    if TRITON_PORTS[0] not in ports:
        raise EnvironmentLacks(
            f"the HTTP port of '{name}' is not published, so it cannot be asked from here",
            expected=f"port {TRITON_PORTS[0]} published",
            found=", ".join(f"{inside} → {outside}" for inside, outside in ports.items()) or "nothing is",
        )
    return container


def join(client: Any, names: Names, slot: str, container: Any, start: ServerStart) -> None:
    """Have the proxy find the container under the slot's name; what it was adopted as stands in further names."""
    import docker.errors

    network = client.networks.get(names.network)
    with suppress(docker.errors.APIError):
        network.disconnect(container)
    network.connect(container, aliases=[names.container(slot), *_marks(start.fingerprint)])


def guest(client: Any, names: Names, slot: str) -> Any | None:
    """The container that was adopted into a slot; None where there is none."""
    for container in client.containers.list(all=True, filters={"network": names.network}, ignore_removed=True):
        if names.container(slot) in _aliases(container, names) and container.labels.get(TARGET) != names.instance:
            return container
    return None


def status_of_guest(container: Any, names: Names, slot: str) -> ServerStatus:
    """The state of an adopted container, as what it was adopted as."""
    status = status_of(container)
    parts = sorted(item for item in _aliases(container, names) if item.startswith(_MARK))
    fingerprint = "".join(item[len(_MARK) + 2 :] for item in parts)
    return replace(
        status, fingerprint=fingerprint, image=container.attrs["Image"], restarts=0, words=f"adopted, {status.words}"
    )


def let_go(client: Any, names: Names, slot: str) -> None:
    """Let an adopted container leave the slot: it runs on, and the proxy does not find it any more."""
    import docker.errors

    container = guest(client, names, slot)
    if container is not None:
        with suppress(docker.errors.NotFound):
            client.networks.get(names.network).disconnect(container)


def _marks(fingerprint: str) -> list[str]:
    """A fingerprint as names of 63 letters at most: an engine keeps names with a network, and nothing else."""
    return [f"{_MARK}0-{fingerprint[:32]}", f"{_MARK}1-{fingerprint[32:]}"]


def _aliases(container: Any, names: Names) -> list[str]:
    networks = container.attrs["NetworkSettings"]["Networks"] or {}
    return list((networks.get(names.network) or {}).get("Aliases") or [])
