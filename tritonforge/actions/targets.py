"""A target of the spec, opened: where it runs, how it is changed, and what its journal says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tritonforge.actions.connections import connection_for
from tritonforge.actions.live import embedded_runtime
from tritonforge.actions.proxy_files import CERTIFICATE, CLIENT_CA, TOKENS, ProxyFiles, proxy_files
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.store import default_home
from tritonforge.errors import EnvironmentLacks, SpecError, UsageError, did_you_mean
from tritonforge.rollout.analysis import Bounds
from tritonforge.rollout.haproxy import ProxySettings
from tritonforge.rollout.host import Host
from tritonforge.rollout.journal import TargetState, read_state
from tritonforge.rollout.strategy import Pace
from tritonforge.spec.platform import Platform
from tritonforge.spec.targets.common import ProxySpec, RolloutSpec, SlotTarget, TargetCommon
from tritonforge.spec.targets.container import ContainerSpec
from tritonforge.spec.targets.embedded import EmbeddedTarget
from tritonforge.spec.targets.helm import HelmTarget
from tritonforge.spec.targets.server import ServerTarget
from tritonforge.spec.targets.target import TargetSpec

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the agent says of a target at one moment."""

    state: TargetState
    lock: Mapping[str, Any] | None
    pending: Mapping[str, Any] | None
    snapshots: Mapping[str, int | None]
    watching: bool
    hello: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A target that can be asked and changed. ``proxy`` is None where there is no proxy of ours."""

    name: str
    spec: TargetCommon
    platform: Platform
    host: Host
    proxy: ProxySettings | None
    files: ProxyFiles
    pace: Pace
    strategy: str
    kind: str

    def read(self) -> Snapshot:
        """The target's own account of itself."""
        said = self.host.place.call("read")
        return Snapshot(
            read_state(said["journal"]),
            said["lock"],
            said["pending"],
            said["snapshots"],
            bool(said["watching"]),
            said["hello"],
        )


def target_spec(workspace: Workspace, name: str) -> TargetSpec:
    """The spec's target called ``name``.

    Raises:
        UsageError: there is none.
    """
    targets = workspace.loaded.spec.targets
    if name not in targets:
        hint = did_you_mean(name, targets) if targets else "declare it under `targets:`"
        raise UsageError(f"the spec has no target '{name}'", hint=hint)
    return targets[name]


@contextmanager
def open_target(workspace: Workspace, name: str, progress: Progress, *, changing: bool = False) -> Iterator[OpenTarget]:
    """Reach a target; what it needs there is made when a release is deployed, not here. Secrets of its proxy are read
    only when something is about to be changed.

    Raises:
        EnvironmentLacks: this machine or the target lacks something.
    """
    spec = target_spec(workspace, name)
    platform = workspace.platform(spec.platform)
    with _host(workspace, name, spec, platform, progress) as (host, proxy):
        strategy = spec.strategy if isinstance(spec, SlotTarget) else "two-slots"
        if isinstance(spec, ServerTarget):
            strategy = "one-slot"
        if strategy == "one-slot":
            _refuse_proxy(workspace, name, spec)
            proxy = None
        files = proxy_files(workspace, name, spec.proxy) if changing and hasattr(spec, "proxy") else ProxyFiles()
        if proxy is not None:
            proxy = replace(proxy, mark=files.mark)
        yield OpenTarget(
            name, spec, platform, host, proxy, files, pace_of(spec.rollout, spec.retention), strategy, spec.kind
        )


@contextmanager
def _host(
    workspace: Workspace, name: str, spec: TargetSpec, platform: Platform, progress: Progress
) -> Iterator[tuple[Host, ProxySettings | None]]:
    if isinstance(spec, EmbeddedTarget):
        from tritonforge.rollout.targets.embedded import EmbeddedHost, Public

        root = _folder(workspace, name, spec)
        ports = spec.ports
        host = EmbeddedHost(root, embedded_runtime(progress), Public(ports.bind, ports.http, ports.grpc, ports.metrics))
        http, grpc, metrics = host.binds
        yield (
            host,
            ProxySettings(
                http,
                grpc,
                metrics,
                [f"unix@{host.socket} mode 600 level admin"],
                sequence_header=spec.proxy.sequence_header,
                drain_s=spec.rollout.drain_s,
                **secured(spec.proxy, str(root)),
            ),
        )
        return
    if isinstance(spec, ContainerSpec):
        from tritonforge.actions.container_targets import open_containers

        instance = instance_name(workspace, name, spec)
        with open_containers(workspace, instance, spec, platform, progress) as (containers, settings):
            yield containers, replace(settings, **secured(spec.proxy, "/tritonforge"))
        return
    if isinstance(spec, HelmTarget):
        from tritonforge.actions.helm_target import open_helm

        with open_helm(workspace, name, instance_name(workspace, name, spec), spec, platform, progress) as (
            cluster,
            settings,
        ):
            yield cluster, replace(settings, **secured(spec.proxy, "/tritonforge"))
        return
    if isinstance(spec, ServerTarget):
        from tritonforge.rollout.targets.server import ServerHost

        repository = (workspace.loaded.folder / Path(spec.repository).expanduser()).resolve()
        named = instance_name(workspace, name, spec)
        yield ServerHost(named, repository, connection_for(workspace, spec.connection)), None
        return
    raise EnvironmentLacks(f"targets of kind '{spec.kind}' cannot be deployed to yet")


def _refuse_proxy(workspace: Workspace, name: str, spec: TargetSpec) -> None:
    """With one slot clients reach the server itself.

    Raises:
        SpecError: what only a proxy can do is asked for.
    """
    asked = getattr(spec, "proxy", None)
    if asked is not None and (asked.tls is not None or asked.tokens):
        raise SpecError(
            "with one slot there is no proxy that could serve TLS or ask for tokens",
            place=workspace.loaded.place("targets", name, "proxy"),
            hint="use `strategy: two-slots`, or put a proxy of your own before the server",
        )


def secured(spec: ProxySpec, root: str) -> dict[str, Any]:
    """The settings of a proxy with TLS or tokens; ``root`` is the target's folder as the proxy sees it."""
    tls = None
    if spec.tls is not None:
        tls = {"crt": f"{root}/{CERTIFICATE}", "ca": f"{root}/{CLIENT_CA}" if spec.tls.client_ca else None}
    return {"tls": tls, "tokens": f"{root}/{TOKENS}" if spec.tokens else None}


def instance_name(workspace: Workspace, name: str, spec: Any) -> str:
    """What the target's things are called there: the spec's ``name``, else ``<spec>-<target>``."""
    given = getattr(spec, "name", None)
    return str(given) if given else f"{workspace.loaded.spec.name}-{name}".lower().replace("_", "-").replace(".", "-")


def _folder(workspace: Workspace, name: str, spec: EmbeddedTarget) -> Path:
    if spec.folder is not None:
        return (workspace.loaded.folder / Path(spec.folder).expanduser()).resolve()
    return default_home() / "targets" / instance_name(workspace, name, spec)


def pace_of(spec: RolloutSpec, retention: int) -> Pace:
    """The spec's `rollout` as numbers."""
    analysis = spec.analysis
    bounds = Bounds(
        analysis.min_requests, analysis.failure_rate_max, analysis.latency_ratio_max, analysis.latency_floor_ms
    )
    return Pace(
        tuple(spec.weights),
        analysis.hold_s,
        analysis.wait_s,
        bounds,
        spec.ready_s,
        spec.drain_s,
        spec.deadman_s,
        spec.keep_warm,
        retention,
        spec.restart,
    )
