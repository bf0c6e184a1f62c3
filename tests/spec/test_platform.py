from __future__ import annotations

import platform as machine

import pytest

from tritonforge.spec.models import PlatformSpec
from tritonforge.spec.platform import EMBEDDED_RELEASE, resolve_platform


def test_without_a_word_it_is_the_embedded_server_on_this_processor() -> None:
    made = resolve_platform("local", PlatformSpec())
    assert (made.embedded, made.triton, made.processor, made.gpus) == (True, EMBEDDED_RELEASE, machine.machine(), 0)


@pytest.mark.parametrize(
    ("stated", "gpus"),
    [({}, 0), ({"gpu": "sm_80"}, 1), ({"gpu": "sm_80", "gpus": 4}, 4), ({"gpu": "sm_80", "gpus": 0}, 0)],
)
def test_a_gpu_means_one_unless_it_is_counted(stated: dict[str, object], gpus: int) -> None:
    assert resolve_platform("p", PlatformSpec.model_validate(stated)).gpus == gpus


def test_releases_compare_as_numbers() -> None:
    old, new = (resolve_platform("p", PlatformSpec(triton=release)) for release in ("24.9".replace("9", "09"), "24.10"))
    assert old.release < new.release
    assert new.to_json()["triton"] == "24.10"
