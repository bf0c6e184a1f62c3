"""Containers of a Docker engine: two servers and HAProxy, and a keeper on the volume that they share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.haproxy import config_operation
from tritonforge.rollout.host import Address, ProxyStatus, ServerStart, ServerStatus
from tritonforge.rollout.model_control import restricting
from tritonforge.rollout.targets import adoption
from tritonforge.rollout.targets.container_run import ContainerRun, not_started, server_words
from tritonforge.rollout.targets.containers import (
    FINGERPRINT,
    IMAGE,
    PUBLIC,
    RELEASE,
    ROOT,
    TARGET,
    TRITON_PORTS,
    Names,
    discard,
    find_ours,
    halt,
    log_lines,
    private_ports,
    published,
    require_room_for_names,
    status_of,
)
from tritonforge.rollout.targets.docker_proxy import SOCKET, ProxyContainer
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import Engine
from tritonforge.rollout.targets.images import PROXY_IMAGE, require, resolve
from tritonforge.rollout.targets.keeper import Keeper
from tritonforge.rollout.targets.volume_place import VolumePlace
from tritonforge.triton.connection import Connection

_LOOPBACK: Final = "127.0.0.1"
_UNREACHED: Final = Connection("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1")
"""Of a server that does not run: nobody listens there, and :meth:`DockerHost.status` says why."""
_EVERYWHERE: Final = ("0.0.0.0", "::", "*")  # noqa: S104 - compared with, not bound


class DockerHost:
    """Runs one target in an engine. ``names`` are those of its containers, volumes and network.

    ``run`` is asked when something is about to be started: what it says may have to be found out over there.
    """

    def __init__(
        self,
        engine: Engine,
        names: Names,
        run: Callable[[], ContainerRun],
        public: Public,
        *,
        proxy_image: str | None = None,
        drain: float = 30.0,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.engine = engine
        self.names = names
        self._run = run
        self._public = public
        self._progress = progress
        self._resolved: dict[str, str] = {}
        self._proxy_image = proxy_image or PROXY_IMAGE
        self._drain = drain
        self.keeper = self._new_keeper()
        self.place = VolumePlace(self.keeper)
        self.proxy = self._new_proxy()

    def prepare(self) -> None:
        """Have the volumes, the network and the keeper there; whatever must be fetched is fetched before."""
        require_room_for_names(self.names)
        self.resolve_image()
        self.proxy.image()
        with self.engine.calls():
            self._volumes()
            self._network()
        self.keeper.up()
        ends = time.monotonic() + 15
        while not self.place.call("read")["watching"]:
            if time.monotonic() > ends:
                raise EnvironmentLacks(
                    "the target's dead-man timer does not start", found="; ".join(self.logs("keeper", 3, False)) or None
                )
            time.sleep(0.1)

    def resolve_image(self) -> str:
        return self._image(self._run().image)

    def settings(self) -> Mapping[str, Any]:
        return self._run().settings()

    def start(self, slot: str, start: ServerStart) -> None:
        with self.engine.calls():
            found = find_ours(self.engine.client, self.names, slot)
            if "adopted" in (start.settings or {}):
                self._still_adopted(slot, start)
                return
            adoption.let_go(self.engine.client, self.names, slot)
            if found is not None and found.labels.get(FINGERPRINT) == start.fingerprint:
                if found.status == "running":
                    return
                if found.status == "created":
                    self._begin(found)
                    return
            if found is not None:
                discard(found, 10.0)
            self._launch(slot, start)

    def stop(self, slot: str, grace: float) -> None:
        with self.engine.calls():
            found = find_ours(self.engine.client, self.names, slot)
            if found is None:
                # What was adopted is never stopped: the proxy only finds it no more.
                adoption.let_go(self.engine.client, self.names, slot)
                return
            if found.status == "created":
                discard(found)
            elif found.status not in ("exited", "dead"):
                # It stays, ended: its log may be wanted. The engine does not start it again by itself.
                halt(found, grace)

    def status(self, slot: str) -> ServerStatus:
        with self.engine.calls():
            found = find_ours(self.engine.client, self.names, slot)
            guest = None if found is not None else adoption.guest(self.engine.client, self.names, slot)
            return status_of(found) if guest is None else adoption.status_of_guest(guest, self.names, slot)

    @contextmanager
    def reach(self, slot: str) -> Iterator[Connection]:
        with self.engine.calls():
            ports = private_ports(self.engine.client, self.names, slot)
            container = find_ours(self.engine.client, self.names, slot)
            if container is None:
                container = adoption.guest(self.engine.client, self.names, slot)
                ports = {} if container is None else published(container) or {}
        if not ports or container is None:
            yield _UNREACHED
            return
        if not container.labels.get(PUBLIC):
            with self._connection(_LOOPBACK, [ports.get(port) for port in TRITON_PORTS]) as connection:
                yield connection
            return
        said = self.place.call("control_key")
        with self.public() as connection:
            yield replace(connection, headers={said["header"]: said["key"]})

    def address(self, slot: str) -> Address:
        # Names, not addresses: the engine gives others after a restart. What was adopted has the slot's name as well.
        return Address(self.names.container(slot), *TRITON_PORTS, resolve=True)

    def control(self) -> list[str]:
        return [f"unix:{SOCKET}"]

    def proxy_up(self, config: str) -> None:
        self.proxy.up(config)

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        for operation in self.settling(config):
            self.place.call(operation["op"], {**operation, "token": token})

    def settling(self, config: str) -> list[dict[str, Any]]:
        return [config_operation(config)]

    def proxy_status(self) -> ProxyStatus:
        return self.proxy.status()

    @contextmanager
    def public(self) -> Iterator[Connection]:
        public = self._public
        bind = _LOOPBACK if public.bind in _EVERYWHERE else public.bind
        with self._connection(bind, [public.http, public.grpc, public.metrics]) as connection:
            yield connection

    def logs(self, unit: str, tail: int, follow: bool) -> Iterator[str]:
        with self.engine.calls():
            yield from log_lines(find_ours(self.engine.client, self.names, unit), tail, follow)

    @contextmanager
    def reach_foreign(self, name: str) -> Iterator[tuple[Connection, str, tuple[str, ...]]]:
        """A running Triton that is to be adopted: its address, its image's id and its command."""
        with self.engine.calls():
            container = adoption.foreign_container(self.engine.client, name)
            ports = published(container) or {}
        with self._connection(_LOOPBACK, [ports.get(port) for port in TRITON_PORTS]) as connection:
            yield connection, str(container.attrs["Image"]), tuple(container.attrs["Config"].get("Cmd") or ())

    def adopt(self, slot: str, name: str, start: ServerStart) -> None:
        """Have the proxy find the container ``name`` in a slot; nothing of it is restarted."""
        with self.engine.calls():
            adoption.join(
                self.engine.client, self.names, slot, adoption.foreign_container(self.engine.client, name), start
            )

    def _still_adopted(self, slot: str, start: ServerStart) -> None:
        guest = adoption.guest(self.engine.client, self.names, slot)
        if guest is None or adoption.status_of_guest(guest, self.names, slot).fingerprint != start.fingerprint:
            raise CheckFailed(
                "the server that was adopted has left the target, so nothing can go back to it",
                hint="its slot was needed for a later release; deploy a release of the spec instead",
            )

    def remove(self) -> None:
        client, ours = self.engine.client, {"label": f"{TARGET}={self.names.instance}"}
        with self.engine.calls():
            for container in client.containers.list(all=True, filters=ours, ignore_removed=True):
                discard(container)
            for network in client.networks.list(filters=ours):
                network.remove()
            for volume in client.volumes.list(filters=ours):
                volume.remove()

    def close(self) -> None:
        """The engine is closed by whoever opened it."""

    @contextmanager
    def _connection(self, host: str, ports: Sequence[int | None]) -> Iterator[Connection]:
        with ExitStack() as stack:
            ends = [None if port is None else stack.enter_context(self.engine.endpoint(host, port)) for port in ports]
            yield Connection(ends[0], ends[1], ends[2])

    def _new_keeper(self) -> Keeper:
        # Of Triton's own image: it has Python, and is there anyway.
        return Keeper(self.engine, self.names, self.resolve_image)

    def _new_proxy(self) -> ProxyContainer:
        return ProxyContainer(
            self.engine, self.names, self.keeper, self.place, self._public, self._image_of_the_proxy, self._drain
        )

    def _image_of_the_proxy(self) -> str:
        return self._image(self._proxy_image)

    def _image(self, name: str) -> str:
        if name not in self._resolved:
            with self.engine.calls():
                self._resolved[name] = resolve(self.engine.client, name, self._progress)
        return self._resolved[name]

    def _volumes(self) -> None:
        if not self.keeper.there:
            self.engine.client.volumes.create(self.names.volume, labels=self.names.labels("state"))
        # Making one that is there already changes nothing, and gives it back.
        self.engine.client.volumes.create(self.names.proxy_volume, labels=self.names.labels("proxy"))

    def _network(self) -> None:
        client, name = self.engine.client, self.names.network
        # The engine takes two of one name; the filter also finds longer names.
        if any(item.name == name for item in client.networks.list(names=[name])):
            return
        client.networks.create(name, driver="bridge", check_duplicate=True, labels=self.names.labels("network"))

    def _launch(self, slot: str, start: ServerStart) -> None:
        self._begin(self._create(slot, start))

    def _create(self, slot: str, start: ServerStart) -> Any:
        import docker.types

        assert start.image is not None
        require(self.engine.client, start.image, self._progress)
        settings = dict(start.settings or {})
        gpus = [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])] if settings.get("gpus") else None
        cpus = settings.get("cpus")
        return self.engine.client.containers.create(
            start.image,
            [*server_words(start), *self._restrictions(settings)],
            name=self.names.container(slot),
            labels=self._labels(slot, start),
            network=self.names.network,
            mounts=[docker.types.Mount(ROOT, self.names.volume, type="volume", read_only=True)],
            ports=self._ports(settings),
            restart_policy={"Name": "unless-stopped"},
            init=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges", "label=disable"],
            shm_size=settings.get("shm_size"),
            device_requests=gpus,
            runtime=settings.get("runtime"),
            mem_limit=settings.get("memory"),
            nano_cpus=None if cpus is None else round(float(cpus) * 1e9),
            environment=dict(settings.get("environment", {})),
            user=settings.get("user"),
        )

    def _ports(self, settings: Mapping[str, Any]) -> dict[str, tuple[str, int | None]]:
        """Private ones of the engine's choosing; the target's own where there is no proxy before the server."""
        if not settings.get("public"):
            return {f"{port}/tcp": (_LOOPBACK, None) for port in TRITON_PORTS}
        public = self._public
        outside = (public.http, public.grpc, public.metrics)
        return {f"{port}/tcp": (public.bind, out) for port, out in zip(TRITON_PORTS, outside, strict=True)}

    def _restrictions(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Where clients reach the server itself, only whoever knows the target's key may load something.

        Triton takes it as an argument alone: whoever may ask the engine about its containers can read it.
        """
        return restricting(**self.place.call("control_key")) if settings.get("public") else ()

    def _begin(self, container: Any) -> None:
        import docker.errors

        try:
            container.start()
        except docker.errors.APIError as error:
            discard(container)
            raise not_started(str(error.explanation or error)) from None

    def _labels(self, slot: str, start: ServerStart) -> dict[str, str]:
        return {
            **self.names.labels(slot),
            FINGERPRINT: start.fingerprint,
            RELEASE: start.release,
            IMAGE: str(start.image),
            **({PUBLIC: "yes"} if (start.settings or {}).get("public") else {}),
        }
