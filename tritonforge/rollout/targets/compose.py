"""The services of a compose file on an engine of this machine, blue and green among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError
from tritonforge.rollout.host import ServerStart
from tritonforge.rollout.targets.compose_program import NEEDED, Project
from tritonforge.rollout.targets.container_run import ContainerRun, not_started, server_words
from tritonforge.rollout.targets.containers import FINGERPRINT, IMAGE, TARGET, Names, discard, find_ours
from tritonforge.rollout.targets.docker import DockerHost
from tritonforge.rollout.targets.docker_proxy import ProxyContainer, port_taken
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import Engine
from tritonforge.rollout.targets.keeper import AGENT_LABEL, PYTHON, Keeper

_SERVICE: Final = {"proxy": "haproxy"}


@dataclass(frozen=True, slots=True)
class ComposeNames(Names):
    """Names as Compose gives them: ``PROJECT-SERVICE-1``, ``PROJECT_volume``."""

    @property
    def mark(self) -> tuple[str, str]:
        return ("com.docker.compose.project", self.prefix)

    @property
    def volume(self) -> str:
        return f"{self.prefix}_state"

    @property
    def proxy_volume(self) -> str:
        return f"{self.prefix}_proxy"

    @property
    def network(self) -> str:
        return f"{self.prefix}_serving"

    def container(self, role: str) -> str:
        return f"{self.prefix}-{_SERVICE.get(role, role)}-1"


@dataclass(slots=True)
class ComposeKeeper(Keeper):
    """The file's own keeper, with this tritonforge's agent on its volume."""

    project: Project = field(kw_only=True)

    def _create(self, image: str, words: list[str], digest: str) -> Any:
        said = {
            "image": image,
            "entrypoint": PYTHON[:1],
            "command": words,
            "labels": {**self.names.labels("keeper"), AGENT_LABEL: digest},
        }
        self.project.run("up", "--no-start", "--no-deps", "--force-recreate", "keeper", services={"keeper": said})
        found = find_ours(self.engine.client, self.names, "keeper")
        if found is None:
            raise EnvironmentLacks("docker compose made no keeper", expected=self.names.container("keeper"))
        return found


@dataclass(slots=True)
class ComposeProxy(ProxyContainer):
    """The file's own proxy, on the target's volume."""

    project: Project = field(kw_only=True)

    def _start(self) -> None:
        image = self.image()
        labels = {**self.names.labels("proxy"), FINGERPRINT: self.fingerprint(), IMAGE: image}
        words = ("up", "-d", "--no-deps", "--force-recreate", "haproxy")
        try:
            self.project.run(*words, services={"haproxy": {"image": image, "labels": labels}})
        except CheckFailed as error:
            raise port_taken(error.found or "") or error from None


class ComposeHost(DockerHost):
    """Runs one target as a project of Docker Compose; ``names`` are those that Compose gives."""

    def __init__(
        self,
        engine: Engine,
        names: ComposeNames,
        run: Callable[[], ContainerRun],
        public: Public,
        project: Project,
        *,
        proxy_image: str | None = None,
        drain: float = 30.0,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.project = project
        super().__init__(engine, names, run, public, proxy_image=proxy_image, drain=drain, progress=progress)

    def prepare(self) -> None:
        services = self.project.services()
        super().prepare()
        others = [name for name in services if name not in NEEDED]
        if others:
            # What looks on, such as Prometheus; it is left alone where it runs as the file says.
            self._progress(f"docker compose up {' '.join(others)}")
            self.project.run("up", "-d", "--no-deps", *others)

    def remove(self) -> None:
        self.project.run("down", "--volumes", "--remove-orphans", "--timeout", "10")
        with self.engine.calls():
            for container in self.engine.client.containers.list(
                all=True, filters={"label": f"{TARGET}={self.names.instance}"}, ignore_removed=True
            ):
                discard(container)

    def _new_keeper(self) -> Keeper:
        return ComposeKeeper(self.engine, self.names, self.resolve_image, project=self.project)

    def _new_proxy(self) -> ProxyContainer:
        return ComposeProxy(
            self.engine,
            self.names,
            self.keeper,
            self.place,
            self._public,
            self._image_of_the_proxy,
            self._drain,
            project=self.project,
        )

    def _volumes(self) -> None:
        """Compose makes them with the first service."""

    def _network(self) -> None:
        """Likewise."""

    def _launch(self, slot: str, start: ServerStart) -> None:
        settings = dict(start.settings or {})
        environment: dict[str, str] = {}
        if settings.get("public"):
            if self._public.bind != "127.0.0.1":
                raise UsageError(
                    "with one slot the services of a compose file are published on this machine's loopback alone",
                    found=f"`ports.bind: {self._public.bind}`",
                    hint="use `strategy: two-slots`, or a target of kind docker",
                )
            public = self._public
            ports = {"HTTP": public.http, "GRPC": public.grpc, "METRICS": public.metrics}
            environment = {f"{slot.upper()}_{name}": str(port) for name, port in ports.items()}
        service = self._service(slot, start, settings)
        try:
            self.project.run(
                "up",
                "-d",
                "--no-deps",
                "--force-recreate",
                slot,
                services={slot: service},
                environment=environment,
            )
        except CheckFailed as error:
            raise not_started(error.found or error.message) from None

    def _service(self, slot: str, start: ServerStart, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What a slot has beside what the file says of it."""
        said: dict[str, Any] = {
            "image": start.image,
            "command": [*server_words(start), *self._restrictions(settings)],
            "labels": self._labels(slot, start),
            "shm_size": settings.get("shm_size"),
            "runtime": settings.get("runtime"),
            "mem_limit": settings.get("memory"),
            "cpus": settings.get("cpus"),
            "user": settings.get("user"),
            "environment": dict(settings.get("environment", {})),
        }
        if settings.get("gpus"):
            every = {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
            said["deploy"] = {"resources": {"reservations": {"devices": [every]}}}
        # A dollar is the file's own sign.
        found: dict[str, Any] = _doubled({name: value for name, value in said.items() if value not in (None, {})})
        return found


def environment_of(public: Public) -> dict[str, str]:
    """The file's variables for releases on its volumes, and for where clients reach them."""
    return {
        "MODELS": "state",
        "MODELS_TYPE": "volume",
        "PROXY": "proxy",
        "PROXY_MODE": "rw",
        # The agent stands on the volume, where a tritonforge elsewhere can put it.
        "AGENT": "state",
        "BIND": public.bind,
        "HTTP_PORT": str(public.http),
        "GRPC_PORT": str(public.grpc),
        "METRICS_PORT": str(public.metrics),
    }


def _doubled(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {name: _doubled(item) for name, item in value.items()}
    return [_doubled(item) for item in value] if isinstance(value, list) else value
