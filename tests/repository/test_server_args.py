from __future__ import annotations

import pytest

from tritonforge.errors import SpecError
from tritonforge.repository.server_args import server_arguments
from tritonforge.spec.models import ServerSettings
from tritonforge.spec.sizes import size_in_bytes

ALWAYS = ["--strict-readiness=true", "--exit-on-error=true", "--exit-timeout-secs=30"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("12B", 12),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("64 MiB", 64 << 20),
        ("2gb", 2 * 10**9),
        ("1Gi", 1 << 30),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5GiB", "1TiB", "one"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is no size"):
        size_in_bytes(text)


SETTINGS: list[tuple[dict[str, object], str]] = [
    ({}, ""),
    ({"cache": {"size": "1MiB"}}, "--cache-config=local,size=1048576"),
    (
        {"cache": {"kind": "redis", "options": {"port": "1", "host": "h"}}},
        "--cache-config=redis,host=h --cache-config=redis,port=1",
    ),
    ({"backends": {"onnxruntime": {"a": True}}}, "--backend-config=onnxruntime,a=true"),
    ({"memory": {"python_shared": "1KiB"}}, "--backend-config=python,shm-default-byte-size=1024"),
    ({"memory": {"python_shared_growth": "2KiB"}}, "--backend-config=python,shm-growth-byte-size=2048"),
    (
        {"memory": {"pinned_pool": "0", "cuda_pool": {0: "1KiB"}}},
        "--pinned-memory-pool-byte-size=0 --cuda-memory-pool-byte-size=0:1024",
    ),
    (
        {"rate_limiter": {"mode": "execution_count", "resources": ["R:1"]}},
        "--rate-limit=execution_count --rate-limit-resource=R:1",
    ),
    (
        {"tracing": {"options": {"file": "f"}}},
        "--trace-config=mode=triton --trace-config=rate=1000 --trace-config=level=TIMESTAMPS"
        " --trace-config=triton,file=f",
    ),
    ({"model_load_threads": 4, "metrics": False}, "--model-load-thread-count=4 --allow-metrics=false"),
    ({"options": {"log-verbose": 1}}, "--log-verbose=1"),
    ({"options": {"disable-auto-complete-config": True}}, "--disable-auto-complete-config"),
    ({"options": {"disable-auto-complete-config": False}}, ""),
]


@pytest.mark.parametrize(("settings", "more"), SETTINGS)
def test_each_setting_is_an_option(settings: dict[str, object], more: str) -> None:
    found = server_arguments(ServerSettings.model_validate(settings))
    assert sorted(found) == sorted([*ALWAYS, *more.split()])


def test_readiness_is_always_said() -> None:
    settings = ServerSettings.model_validate(
        {"readiness": {"strict": False, "exit_on_error": False, "exit_timeout_s": 1}}
    )
    assert server_arguments(settings) == ["--strict-readiness=false", "--exit-on-error=false", "--exit-timeout-secs=1"]
