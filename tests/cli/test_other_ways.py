"""Where the embedded Triton cannot run, the error names the image of the platform's own release."""

from __future__ import annotations

import platform

import pytest

from cli.commands import Workshop
from tritonforge.actions.live import ServerChoice
from tritonforge.actions.validate import validate
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import EnvironmentLacks


@pytest.mark.parametrize(("triton", "release"), [("embedded", "24.10"), ("24.05", "24.05")])
def test_the_image_to_take_instead_is_named(
    built: Workshop, monkeypatch: pytest.MonkeyPatch, triton: str, release: str
) -> None:
    built.write(f'platforms: {{local: {{triton: "{triton}"}}}}\nmodels:\n  good: {{source: good.onnx}}\n')
    built.build()
    monkeypatch.setenv("TRITONFORGE_HOME", str(built.home))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    with pytest.raises(EnvironmentLacks) as caught:
        validate(open_workspace(built.folder), choice=ServerChoice())
    assert "this system has 2.31" in str(caught.value)
    assert f"--container IMAGE (docker; NVIDIA's is nvcr.io/nvidia/tritonserver:{release}-py3)" in str(caught.value)
