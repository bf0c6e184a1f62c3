"""Helm is found and its version known; what it says becomes one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.errors import EnvironmentLacks, ForgeError, SpecError
from tritonforge.rollout.targets.helm_program import HelmFailed, HelmProgram, failure, find_helm, read_version
from tritonforge.rollout.targets.kubernetes_api import Access


def program(folder: Path, text: str) -> None:
    file = folder / "helm"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "version"),
    [("v4.1.4+g05fa379", (4, 1)), ("v3.14.0", (3, 14)), ("version.BuildInfo{…}", None), ("", None)],
)
def test_the_version_is_read(text: str, version: tuple[int, int] | None) -> None:
    assert read_version(text) == version


def test_without_helm_it_is_said_where_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="which is not installed") as caught:
        find_helm(Access(), 60)
    assert "helm.sh/docs/intro/install" in str(caught.value.hint)


def test_a_helm_before_3_14_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "echo v3.13.2+g2a2fb3b")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EnvironmentLacks, match="too old") as caught:
        find_helm(Access(), 60)
    assert (caught.value.expected, "v3.13.2" in str(caught.value.found)) == ("3.14 or newer", True)


def test_every_call_names_namespace_context_and_kubeconfig(tmp_path: Path) -> None:
    program(tmp_path, 'echo "$@"')
    helm = HelmProgram(str(tmp_path / "helm"), (4, 1), Access("shop", "prod", Path("/k/config")), 60)
    assert helm.run(["history", "x"]) == "history x --namespace shop --kube-context prod --kubeconfig /k/config\n"
    plain = HelmProgram(str(tmp_path / "helm"), (4, 1), Access(), 60)
    assert plain.run(["list"]) == "list --namespace default\n"


def test_only_helm_4_is_told_to_win_conflicts() -> None:
    assert HelmProgram("helm", (3, 14), Access(), 60).applying == []
    assert HelmProgram("helm", (4, 0), Access(), 60).applying == ["--server-side=true", "--force-conflicts"]


SAID: list[tuple[str, type[ForgeError], str]] = [
    ('Error: kubernetes cluster unreachable: Get "https://1.2.3.4"', EnvironmentLacks, "the cluster is not reached"),
    ("Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress", EnvironmentLacks, "another"),
    ('Error: create: failed to create: namespaces "shop" not found', EnvironmentLacks, "namespace is not there"),
    ('Error: secrets is forbidden: User "x" cannot list resource', EnvironmentLacks, "does not allow helm upgrade"),
    (
        "Error: values don't meet the specifications of the schema(s) in the following chart(s):\n"
        "tritonforge:\n- at '/gpu': additional properties 'cuont' not allowed\n",
        SpecError,
        "cuont",
    ),
    (
        "Error: execution error at (tritonforge/templates/slots.yaml:1:4): traffic.blue and traffic.green are both 0",
        SpecError,
        "both 0",
    ),
    ("Error: UPGRADE FAILED: something else", HelmFailed, "something else"),
]


@pytest.mark.parametrize(("text", "kind", "words"), SAID)
def test_what_helm_says_becomes_an_error_that_says_what_to_do(text: str, kind: type[ForgeError], words: str) -> None:
    error = failure("upgrade", text)
    assert type(error) is kind
    assert words in str(error)
    if kind is not HelmFailed:
        assert error.hint
