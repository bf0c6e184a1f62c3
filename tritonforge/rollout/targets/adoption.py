"""A Triton that ran before tritonforge came, taken into a slot with nothing restarted.

Its container joins the target's network under the slot's name, so the proxy finds it like any other server. It stays
whoever's it is: it is never stopped or removed, only left when its slot is needed for something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.rollout.host import ServerStart, ServerStatus
from tritonforge.rollout.place import Place
from tritonforge.rollout.targets.containers import TRITON_PORTS, Names, find, published, status_of

FILE: Final = "adopted.json"
"""Below the target's root: slot → container, fingerprint and release."""


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


def join(client: Any, names: Names, slot: str, container: Any) -> None:
    """Have the proxy find the container under the slot's name."""
    import docker.errors

    network = client.networks.get(names.network)
    with suppress(docker.errors.APIError):
        network.disconnect(container)
    network.connect(container, aliases=[names.container(slot)])


def note(place: Place, token: str, slot: str, container: Any, start: ServerStart) -> None:
    """Remember whose the slot is."""
    said = {slot: {"container": container.id, "fingerprint": start.fingerprint, "release": start.release}}
    place.call("write_file", {"token": token, "path": FILE, "text": json.dumps(said)})


def adopted(place: Place, slot: str) -> Mapping[str, str] | None:
    """What was adopted into a slot; None where it is tritonforge's own."""
    text = place.call("read_file", {"path": FILE})
    found = json.loads(text).get(slot) if text else None
    return None if found is None else dict(found)


def status_of_adopted(client: Any, said: Mapping[str, str]) -> ServerStatus:
    """The state of an adopted container, as what it was adopted as."""
    status = status_of(find(client, said["container"]))
    return ServerStatus(
        status.running,
        said["fingerprint"],
        said["release"],
        status.image,
        status.started,
        status.restarts,
        f"adopted, {status.words}",
    )


def leave(client: Any, names: Names, said: Mapping[str, str]) -> None:
    """Let go of an adopted container: it runs on, and gets nothing from the proxy any more."""
    import docker.errors

    container = find(client, said["container"])
    if container is None:
        return
    try:
        client.networks.get(names.network).disconnect(container)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code == 404 or "is not connected" in str(error.explanation or error):
            return
        raise CheckFailed(f"'{container.name}' does not leave the target's network", found=str(error)) from None
