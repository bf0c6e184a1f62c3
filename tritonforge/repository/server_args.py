"""The server settings of a spec as options of ``tritonserver``.

Source of the options: ``tritonserver --help`` of 2.51.0 and Triton's ``docs/user_guide`` (response cache, rate limiter,
trace, model management).
"""

from __future__ import annotations

from typing import Final

from tritonforge.spec.models import ServerSettings
from tritonforge.spec.sizes import size_in_bytes

_FLAGS: Final = ("disable-auto-complete-config",)
"""Options that tritonserver takes without a value, and refuses with one."""


def server_arguments(settings: ServerSettings) -> list[str]:
    """Options that are the same wherever the release is served: no ports, no paths, no control mode."""
    arguments: list[str] = []
    cache = settings.cache
    if cache is not None:
        options = dict(cache.options)
        if cache.size is not None:
            options["size"] = str(size_in_bytes(cache.size))
        arguments += [f"--cache-config={cache.kind},{name}={value}" for name, value in sorted(options.items())]
    backends = {name: dict(values) for name, values in settings.backends.items()}
    memory = settings.memory
    if memory.python_shared is not None:
        backends.setdefault("python", {})["shm-default-byte-size"] = size_in_bytes(memory.python_shared)
    if memory.python_shared_growth is not None:
        backends.setdefault("python", {})["shm-growth-byte-size"] = size_in_bytes(memory.python_shared_growth)
    for backend, values in sorted(backends.items()):
        arguments += [f"--backend-config={backend},{name}={_text(value)}" for name, value in sorted(values.items())]
    if settings.rate_limiter.mode != "off":
        arguments.append(f"--rate-limit={settings.rate_limiter.mode}")
        arguments += [f"--rate-limit-resource={resource}" for resource in settings.rate_limiter.resources]
    if memory.pinned_pool is not None:
        arguments.append(f"--pinned-memory-pool-byte-size={size_in_bytes(memory.pinned_pool)}")
    arguments += [
        f"--cuda-memory-pool-byte-size={gpu}:{size_in_bytes(size)}" for gpu, size in sorted(memory.cuda_pool.items())
    ]
    tracing = settings.tracing
    if tracing is not None:
        arguments += [f"--trace-config=mode={tracing.mode}", f"--trace-config=rate={tracing.rate}"]
        arguments += [f"--trace-config=level={level}" for level in tracing.level]
        options = dict(sorted(tracing.options.items()))
        arguments += [f"--trace-config={tracing.mode},{name}={value}" for name, value in options.items()]
    readiness = settings.readiness
    arguments.append(f"--strict-readiness={_text(readiness.strict)}")
    arguments.append(f"--exit-on-error={_text(readiness.exit_on_error)}")
    arguments.append(f"--exit-timeout-secs={readiness.exit_timeout_s}")
    if settings.model_load_threads is not None:
        arguments.append(f"--model-load-thread-count={settings.model_load_threads}")
    if not settings.metrics:
        arguments.append("--allow-metrics=false")
    for name, value in sorted(settings.options.items()):
        if name not in _FLAGS:
            arguments.append(f"--{name}={_text(value)}")
        elif value is True:
            arguments.append(f"--{name}")
    return arguments


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
