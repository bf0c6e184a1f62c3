"""Targets of the spec that run containers, opened: an engine here or over SSH, and how its servers are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import tritonforge
from tritonforge.actions.doctor_board import ssh_host
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import EnvironmentLacks
from tritonforge.rollout.haproxy import ProxySettings
from tritonforge.rollout.host import Host
from tritonforge.rollout.targets.compose import ComposeHost, ComposeNames, environment_of
from tritonforge.rollout.targets.compose_program import Project, compose_program
from tritonforge.rollout.targets.container_run import ContainerRun
from tritonforge.rollout.targets.containers import TRITON_PORTS, Names
from tritonforge.rollout.targets.docker import DockerHost
from tritonforge.rollout.targets.docker_proxy import SOCKET
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import open_engine, open_engine_of
from tritonforge.rollout.targets.jetson import BoardRun, JetsonHost
from tritonforge.spec.platform import Platform
from tritonforge.spec.targets.common import PublicPorts, SlotTarget
from tritonforge.spec.targets.compose import ComposeTarget
from tritonforge.spec.targets.container import ContainerSpec
from tritonforge.spec.targets.docker import DockerTarget
from tritonforge.spec.targets.jetson import JetsonTarget
from tritonforge.triton.embedded.machine import vendor_image

Progress = Callable[[str], None]

ENGINE_NAMES = "127.0.0.11:53"
"""The name server of an engine in every network of its users' own (Docker's manual, "Networking overview")."""


@contextmanager
def open_containers(
    workspace: Workspace, instance: str, spec: ContainerSpec, platform: Platform, progress: Progress
) -> Iterator[tuple[Host, ProxySettings]]:
    """The host of a target that runs containers, and its proxy without what is secret.

    Raises:
        EnvironmentLacks: the engine is not reached.
    """
    if isinstance(spec, DockerTarget):
        run = container_run(spec, platform, spec.image or platform.image or vendor_image(platform.triton))
        with open_engine(spec.host) as engine:
            host = DockerHost(
                engine,
                Names(instance),
                lambda: run,
                public(spec.ports),
                proxy_image=spec.proxy.image,
                drain=spec.rollout.drain_s,
                progress=progress,
            )
            yield host, proxy_in_container(spec)
        return
    if isinstance(spec, JetsonTarget):
        # Boards have a GPU, whatever the platform's table of GPUs says.
        given = replace(container_run(spec, platform, spec.image or ""), gpus=spec.gpus is not False)
        wanted = None if platform.embedded else platform.triton
        with ssh_host(workspace, spec) as machine, open_engine_of(machine) as engine:
            board = BoardRun(machine, given, spec.image, wanted, spec.board_root or "")
            yield (
                JetsonHost(
                    engine,
                    Names(instance),
                    board,
                    public(spec.ports),
                    proxy_image=spec.proxy.image,
                    drain=spec.rollout.drain_s,
                    progress=progress,
                ),
                proxy_in_container(spec),
            )
        return
    if isinstance(spec, ComposeTarget):
        run = container_run(spec, platform, spec.image or platform.image or vendor_image(platform.triton))
        with open_engine(spec.host) as engine:
            if engine.ssh is not None:
                raise EnvironmentLacks(
                    "a compose file mounts its settings from this machine, and that engine is on another",
                    found=spec.host or "DOCKER_HOST",
                    hint="use a target of kind docker for it",
                )
            yield (
                ComposeHost(
                    engine,
                    ComposeNames(instance),
                    lambda: run,
                    public(spec.ports),
                    compose_project(workspace, instance, spec),
                    proxy_image=spec.proxy.image,
                    drain=spec.rollout.drain_s,
                    progress=progress,
                ),
                proxy_in_container(spec),
            )
        return
    raise EnvironmentLacks(f"targets of kind '{getattr(spec, 'kind', '')}' cannot be deployed to yet")


def compose_project(workspace: Workspace, instance: str, spec: ComposeTarget) -> Project:
    """The target's compose file, or tritonforge's own, as a project of its name.

    Raises:
        EnvironmentLacks: Compose is not installed, or there is no such file.
    """
    own = (Path(tritonforge.__file__).parent / "compose.yaml").resolve()
    file = own if spec.file is None else workspace.loaded.folder / spec.file
    if not file.is_file():
        raise EnvironmentLacks(
            "there is no compose file",
            found=str(file),
            hint="name one like tritonforge's own compose.yaml with the target's `file`",
        )
    environment = environment_of(public(spec.ports))
    if spec.host is not None:
        environment["DOCKER_HOST"] = spec.host
    return Project(compose_program(), Names(instance).prefix, file, environment, tuple(spec.profiles))


def container_run(spec: ContainerSpec, platform: Platform, image: str) -> ContainerRun:
    """How the spec's servers are run in containers; GPUs where the platform has some, unless it says otherwise."""
    return ContainerRun(
        image,
        spec.shm_size,
        platform.gpus > 0 if spec.gpus is None else spec.gpus,
        spec.runtime,
        spec.memory,
        spec.cpus,
        dict(spec.environment),
        spec.user,
    )


def public(ports: PublicPorts) -> Public:
    """Where clients reach the target."""
    return Public(ports.bind, ports.http, ports.grpc, ports.metrics)


def proxy_in_container(spec: SlotTarget) -> ProxySettings:
    """The proxy as a container: everywhere inside its own network, with the engine's name server."""
    http, grpc, metrics = (f"0.0.0.0:{port}" for port in TRITON_PORTS)
    return ProxySettings(
        http,
        grpc,
        metrics,
        [f"unix@{SOCKET} mode 600 level admin"],
        resolvers=ENGINE_NAMES,
        sequence_header=spec.proxy.sequence_header,
        drain_s=spec.rollout.drain_s,
    )
