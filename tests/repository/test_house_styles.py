"""What the house styles write, word for word; a change of one is a changed config for every user of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.repository.config import generate
from tritonforge.repository.template import house_names
from tritonforge.spec.platform import Platform

from .making import CPU, IMAGES, NEWEST, TEXT, request

GOLDEN = Path(__file__).parent / "golden"
JETSON = Platform("jetson", "26.02", False, "aarch64", gpu="sm_87", gpus=1, jetpack="6.2")
PLATFORMS = {"cpu": CPU, "gpu": NEWEST, "jetson": JETSON}
SIGNATURES = {"batched": IMAGES, "unbatched": TEXT}


@pytest.mark.parametrize("style", house_names("config"))
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("kind", SIGNATURES)
def test_house_styles(style: str, platform: str, kind: str) -> None:
    config = generate(
        request(
            template=style, platform=PLATFORMS[platform], signature=SIGNATURES[kind], name=f"{style}_{platform}_{kind}"
        )
    )
    golden = GOLDEN / f"{style}_{platform}_{kind}.pbtxt"
    assert config.text == golden.read_text()


def test_latency_never_waits() -> None:
    config = generate(request(template="latency"))
    assert config.message.HasField("dynamic_batching")
    assert config.message.dynamic_batching.max_queue_delay_microseconds == 0


def test_throughput_gives_slow_backends_one_instance_on_a_cpu() -> None:
    counts = {
        backend: generate(request(template="throughput", backend=backend)).message.instance_group[0].count
        for backend in ("onnxruntime", "python", "pytorch", "openvino")
    }
    assert counts == {"onnxruntime": 2, "python": 2, "pytorch": 1, "openvino": 1}


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 7, 64])
def test_throughput_prefers_sizes_that_the_largest_batch_allows(largest: int) -> None:
    config = generate(request(template="throughput", max_batch_size=largest))
    assert all(1 <= size <= largest for size in config.message.dynamic_batching.preferred_batch_size)
