"""A target of kind ``helm``, opened: the user's values read, the chart found, the cluster reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.actions.workspace import Workspace
from tritonforge.errors import SpecError, UsageError
from tritonforge.rollout.haproxy import ProxySettings
from tritonforge.spec.platform import Platform
from tritonforge.spec.targets.helm import HelmTarget
from tritonforge.triton.embedded.machine import vendor_image

if TYPE_CHECKING:
    from tritonforge.rollout.targets.helm import HelmHost


@contextmanager
def open_helm(
    workspace: Workspace,
    name: str,
    instance: str,
    spec: HelmTarget,
    platform: Platform,
    progress: Callable[[str], None],
) -> Iterator[tuple[HelmHost, ProxySettings]]:
    """Reach a cluster; ``instance`` is Helm's name of the release.

    Raises:
        EnvironmentLacks: helm, the package kubernetes, the chart or the cluster is not there.
        SpecError: a values file is none.
    """
    from tritonforge.rollout.targets.helm import HelmHost
    from tritonforge.rollout.targets.helm_installation import Installation, own_chart
    from tritonforge.rollout.targets.helm_program import find_helm
    from tritonforge.rollout.targets.helm_values import layered
    from tritonforge.rollout.targets.kubernetes_api import Access, Cluster

    if spec.models.source != "pvc":
        raise UsageError(
            f"`deploy` does not bring models to pods by `{spec.models.source}`",
            place=workspace.loaded.place("targets", name, "models.source"),
            expected="pvc",
            hint="the journal and the releases need a volume; the chart alone (`helm install`) serves the other ways",
        )
    folder = workspace.loaded.folder
    files = [_values(folder / Path(item).expanduser(), workspace, name) for item in spec.values]
    installation = Installation(
        instance,
        own_chart() if spec.chart is None else (folder / Path(spec.chart).expanduser()).resolve(),
        spec.image or platform.image or vendor_image(platform.triton),
        layered([*files, spec.set]),
        spec.routes,
        spec.models.claim,
        spec.models.size,
        spec.models.storage_class,
        spec.proxy.image,
        spec.proxy.sequence_header,
        spec.proxy.tls is not None,
        spec.proxy.tls is not None and spec.proxy.tls.client_ca is not None,
        bool(spec.proxy.tokens),
    )
    kubeconfig = None if spec.kubeconfig is None else (folder / Path(spec.kubeconfig).expanduser()).resolve()
    access = Access(spec.namespace, spec.context, kubeconfig)
    program = find_helm(access, spec.timeout_s)
    host = HelmHost(installation, program, Cluster(access), progress)
    try:
        yield host, settings(spec)
    finally:
        host.close()


def settings(spec: HelmTarget) -> ProxySettings:
    """The proxy as the strategies know it; the chart writes its configuration."""
    return ProxySettings(
        "0.0.0.0:8000",
        "0.0.0.0:8001",
        "0.0.0.0:8405",
        ["ipv4@*:9999 level admin"],
        sequence_header=spec.proxy.sequence_header,
        drain_s=spec.rollout.drain_s,
    )


def _values(file: Path, workspace: Workspace, name: str) -> Mapping[str, Any]:
    import yaml

    place = workspace.loaded.place("targets", name, "values")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            "a values file of the chart is not there", place=place, found=f"{file}: {error.strerror}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError("a values file of the chart is no YAML", place=place, found=f"{file}: {error}") from None
    if found is not None and not isinstance(found, dict):
        raise SpecError("a values file of the chart is a map", place=place, found=f"{file}: {type(found).__name__}")
    return found or {}
